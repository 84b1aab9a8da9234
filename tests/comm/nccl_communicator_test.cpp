// The NCCL communicator itself, with NCCL and CUDA's streams stood in for (support/nccl_stand_in), on host
// memory.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <map>

#include "comm/communicator.hpp"
#include "comm/watchdog.hpp"
#include "support/nccl_stand_in/nccl_stand_in.hpp"

namespace astroclip::comm {
namespace {

using Calls = std::vector<std::string>;

int communicators = 0;  // made so far: the number of the newest

class NcclCommunicator : public testing::Test {
protected:
    NcclCommunicator()
    {
        stand_in_ = {};
        ranks_ = make();
    }
    std::unique_ptr<Communicator> make()
    {
        ++communicators;
        return make_nccl_communicator(world_, at::kCPU);
    }
    // The exit code that `work` ends with.
    template <typename Work>
    int code_of(const Work& work)
    {
        try {
            work();
        } catch (const Error& error) {
            message_ = error.what();
            return error.exit_code;
        }
        return 0;
    }
    // What was called since, with events numbered from 0 on as they come up.
    Calls calls()
    {
        auto seen = std::exchange(stand_in_.calls, {});
        Calls known;
        for (auto& call : seen) {
            if (const auto at = call.find("event="); at != std::string::npos) {
                const auto end = std::min(call.find(' ', at), call.size());
                const auto event = call.substr(at, end - at);
                auto found = std::find(known.begin(), known.end(), event);
                if (found == known.end()) found = known.insert(known.end(), event);
                call.replace(at, end - at, "event=" + std::to_string(found - known.begin()));
            }
        }
        return seen;
    }

    test::NcclStandIn& stand_in_ = test::nccl_stand_in();
    World world_{MPI_COMM_WORLD};
    std::unique_ptr<Communicator> ranks_;
    std::string message_;
};

std::string typed(const std::string& call, int count, ncclDataType_t type, const std::string& more = "")
{
    return call + " count=" + std::to_string(count) + " type=" + std::to_string(type) + more +
           " comm=" + std::to_string(communicators) + " stream=2";
}
const std::string sum = " op=" + std::to_string(ncclSum);

TEST_F(NcclCommunicator, BeginsWithoutBlockingUnderTheIdOfRank0)
{
    const auto init = "ncclCommInitRankConfig size=" + std::to_string(world_.size()) +
                      " rank=" + std::to_string(world_.rank()) + " id=\a blocking=0";
    EXPECT_EQ(stand_in_.calls.back(), init);
    EXPECT_EQ(stand_in_.count("ncclGetUniqueId"), world_.is_root() ? 1 : 0);
}

// Computing is stream 1, communication stream 2.
TEST_F(NcclCommunicator, OrdersEveryCollectiveAfterWhatIsComputedAndBeforeWhatWillBe)
{
    const auto ordered = [](const std::string& collective) {
        return Calls{"cudaEventCreate",
                     "cudaEventRecord event=0 stream=1",
                     "cudaStreamWaitEvent stream=2 event=0",
                     "cudaEventDestroy",
                     collective,
                     "cudaEventCreate",
                     "cudaEventRecord event=1 stream=2",
                     "cudaStreamWaitEvent stream=1 event=1",
                     "cudaEventDestroy"};
    };
    const auto size = world_.size();
    calls();
    auto x = at::full({2, 3}, double(world_.rank() + 1), at::kFloat);
    ranks_->all_reduce_sum(x);
    EXPECT_EQ(calls(), ordered(typed("ncclAllReduce", 6, ncclFloat32, sum)));
    EXPECT_TRUE(x.eq(size * (size + 1) / 2).all().item<bool>());
    EXPECT_EQ(stand_in_.from, x.data_ptr());
    EXPECT_EQ(stand_in_.to, x.data_ptr());

    auto text = at::full({5}, world_.rank(), at::kLong);
    ranks_->broadcast(text, size - 1);
    EXPECT_EQ(calls(), ordered(typed("ncclBroadcast", 5, ncclInt64, " root=" + std::to_string(size - 1))));
    EXPECT_TRUE(text.eq(size - 1).all().item<bool>());

    const auto all = ranks_->all_gather(at::full({2, 3}, double(world_.rank()), at::kDouble));
    EXPECT_EQ(calls(), ordered(typed("ncclAllGather", 6, ncclFloat64)));
    EXPECT_TRUE(all[2 * size - 1].eq(size - 1).all().item<bool>());

    const auto own = ranks_->reduce_scatter_sum(all);
    EXPECT_EQ(calls(),
              ordered(typed("ncclReduceScatter", 6, ncclFloat64, sum)));  // the count of what comes out
    EXPECT_TRUE(own.eq(size * world_.rank()).all().item<bool>());
    EXPECT_EQ(stand_in_.from, all.data_ptr());
    EXPECT_EQ(stand_in_.to, own.data_ptr());
}

TEST_F(NcclCommunicator, SumsMovesAndScattersEveryFloatType)
{
    const std::map<at::ScalarType, ncclDataType_t> types{{at::kDouble, ncclFloat64},
                                                         {at::kFloat, ncclFloat32},
                                                         {at::kHalf, ncclFloat16},
                                                         {at::kBFloat16, ncclBfloat16}};
    const auto size = world_.size();
    for (const auto& [type, as] : types) {
        auto x = at::full({3}, world_.rank() + 1.0, type);
        calls();
        ranks_->all_reduce_sum(x);
        EXPECT_EQ(calls().at(4), typed("ncclAllReduce", 3, as, sum));
        EXPECT_TRUE(x.eq(size * (size + 1) / 2).all().item<bool>()) << type;

        const auto all = ranks_->all_gather(at::full({3}, double(world_.rank()), type));
        EXPECT_TRUE(all[3 * size - 1].eq(size - 1).item<bool>()) << type;
        EXPECT_TRUE(ranks_->reduce_scatter_sum(all).eq(size * world_.rank()).all().item<bool>()) << type;

        auto text = at::full({3}, double(world_.rank()), type);
        ranks_->broadcast(text, size - 1);
        EXPECT_TRUE(text.eq(size - 1).all().item<bool>()) << type;
    }
}

TEST_F(NcclCommunicator, LetsComputingGoOnUntilAnAsynchronousSumIsWaitedFor)
{
    calls();
    auto x = at::ones({4}, at::kFloat);
    auto work = ranks_->all_reduce_sum_async(x);
    EXPECT_EQ(calls(), (Calls{"cudaEventCreate", "cudaEventRecord event=0 stream=1",
                              "cudaStreamWaitEvent stream=2 event=0", "cudaEventDestroy",
                              typed("ncclAllReduce", 4, ncclFloat32, sum), "cudaEventCreate",
                              "cudaEventRecord event=1 stream=2"}));
    work->wait();
    work.reset();
    EXPECT_EQ(calls(), (Calls{"cudaStreamWaitEvent stream=1 event=0", "cudaEventDestroy"}));
    ranks_->all_reduce_sum_async(x).reset();  // nobody waits: its memory is still not used before its end
    EXPECT_EQ(stand_in_.count("cudaStreamWaitEvent stream=1"), 1);
}

TEST_F(NcclCommunicator, LetsComputingGoOnUntilAnAsynchronousGatheringIsWaitedFor)
{
    calls();
    at::Tensor all;
    auto work = ranks_->all_gather_async(at::full({2, 3}, double(world_.rank()), at::kDouble), all);
    EXPECT_EQ(calls(), (Calls{"cudaEventCreate", "cudaEventRecord event=0 stream=1",
                              "cudaStreamWaitEvent stream=2 event=0", "cudaEventDestroy",
                              typed("ncclAllGather", 6, ncclFloat64), "cudaEventCreate",
                              "cudaEventRecord event=1 stream=2"}));
    work->wait();
    EXPECT_EQ(calls(), (Calls{"cudaStreamWaitEvent stream=1 event=0"}));
    EXPECT_TRUE(all[2 * world_.size() - 1].eq(world_.size() - 1).all().item<bool>());
}

TEST_F(NcclCommunicator, AbortsOnceAndNeverDestroysAfterAnError)
{
    stand_in_.fail_at = 0;
    auto x = at::ones({4}, at::kFloat);
    EXPECT_EQ(code_of([&] { ranks_->all_reduce_sum(x); }), 69);
    EXPECT_NE(message_.find("ncclAllReduce"), std::string::npos) << message_;
    ranks_.reset();
    EXPECT_EQ(stand_in_.count("ncclCommAbort"), 1);
    EXPECT_EQ(stand_in_.count("ncclCommDestroy"), 0);
    EXPECT_EQ(stand_in_.count("ncclCommFinalize"), 0);
}

// 69 is tried again, 70 is not.
TEST_F(NcclCommunicator, TellsWhatIsLostFromWrongCalls)
{
    const std::map<ncclResult_t, int> codes{{ncclRemoteError, 69},        {ncclSystemError, 69},
                                            {ncclUnhandledCudaError, 69}, {ncclInvalidArgument, 70},
                                            {ncclInvalidUsage, 70},       {ncclInternalError, 70}};
    for (const auto& [failure, code] : codes) {
        ranks_ = make();
        stand_in_.failure = failure;
        stand_in_.fail_at = stand_in_.collectives;
        auto x = at::ones({4}, at::kFloat);
        EXPECT_EQ(code_of([&] { ranks_->all_reduce_sum(x); }), code) << failure;
    }
    ranks_ = make();
    stand_in_.event_fails = true;
    auto x = at::ones({4}, at::kFloat);
    EXPECT_EQ(code_of([&] { ranks_->all_reduce_sum(x); }), 70);
    EXPECT_NE(message_.find("cudaEventRecord"), std::string::npos) << message_;
    stand_in_.event_fails = false;
}

// The last rank's call fails; the others' have been made, and their stream waits for ever.
TEST_F(NcclCommunicator, TellsTheWatchdogOfAFailureOfAnotherRank)
{
    const bool culprit = world_.rank() == world_.size() - 1;
    (culprit ? stand_in_.fail_at : stand_in_.lost_at) = 0;
    EXPECT_EQ(watched_fault(), "");
    auto x = at::ones({4}, at::kFloat);
    EXPECT_EQ(code_of([&] { ranks_->all_reduce_sum(x); }), culprit ? 69 : 0);
    const auto told = watched_fault();
    if (culprit) {
        EXPECT_EQ(told, "");  // it threw, and its communicator is aborted
    } else {
        EXPECT_NE(told.find("remote process exited (stand-in)"), std::string::npos) << told;
    }
    ranks_.reset();
    EXPECT_EQ(watched_fault(), "");
}

TEST_F(NcclCommunicator, ThatCannotBeginIsAborted)
{
    ranks_.reset();
    stand_in_.calls.clear();
    stand_in_.init_fails = true;
    EXPECT_EQ(code_of([&] { make(); }), 69);
    EXPECT_NE(message_.find("ncclCommInitRankConfig"), std::string::npos) << message_;
    EXPECT_EQ(stand_in_.count("ncclCommAbort"), 1);
    EXPECT_EQ(stand_in_.count("ncclCommDestroy"), 0);
}

TEST_F(NcclCommunicator, ThatCannotBeFinalizedIsAborted)
{
    stand_in_.finalize_fails = true;
    ranks_.reset();
    EXPECT_EQ(stand_in_.count("ncclCommAbort"), 1);
    EXPECT_EQ(stand_in_.count("ncclCommDestroy"), 0);
}

TEST_F(NcclCommunicator, AbortsWhenAnExceptionOfThisRankEndsIt)
{
    try {
        const auto ending = std::move(ranks_);
        throw std::runtime_error("a bad file");
    } catch (const std::runtime_error&) {
    }
    EXPECT_EQ(stand_in_.count("ncclCommAbort"), 1);
    EXPECT_EQ(stand_in_.count("ncclCommFinalize"), 0);  // which would wait for ranks that are elsewhere
}

TEST_F(NcclCommunicator, EndsByFinalizingAndDestroying)
{
    ranks_.reset();
    EXPECT_EQ(stand_in_.count("ncclCommFinalize"), 1);
    EXPECT_EQ(stand_in_.count("ncclCommDestroy"), 1);
    EXPECT_EQ(stand_in_.count("ncclCommAbort"), 0);
}

TEST_F(NcclCommunicator, WaitsForTheComputingStreamBeforeABarrier)
{
    calls();
    ranks_->barrier();
    EXPECT_EQ(calls(), Calls{"cudaStreamSynchronize stream=1"});
}

}  // namespace
}  // namespace astroclip::comm
