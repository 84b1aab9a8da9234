// The NCCL communicator itself, with NCCL and CUDA's streams stood in for (support/nccl_stand_in), on host
// memory.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include "comm/communicator.hpp"
#include "support/nccl_stand_in/nccl_stand_in.hpp"

namespace astroclip::comm {
namespace {

using Calls = std::vector<std::string>;

class NcclCommunicator : public testing::Test {
protected:
    NcclCommunicator()
    {
        stand_in_ = {};
        ranks_ = make_nccl_communicator(world_, at::kCPU);
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
};

std::string typed(const std::string& call, int count, ncclDataType_t type)
{
    return call + " count=" + std::to_string(count) + " type=" + std::to_string(type) + " stream=2";
}

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
    EXPECT_EQ(calls(), ordered(typed("ncclAllReduce", 6, ncclFloat32)));
    EXPECT_TRUE(x.eq(size * (size + 1) / 2).all().item<bool>());

    auto text = at::full({5}, world_.rank(), at::kLong);
    ranks_->broadcast(text, size - 1);
    EXPECT_EQ(calls(), ordered(typed("ncclBroadcast", 5, ncclInt64)));
    EXPECT_TRUE(text.eq(size - 1).all().item<bool>());

    const auto all = ranks_->all_gather(at::full({2, 3}, double(world_.rank()), at::kDouble));
    EXPECT_EQ(calls(), ordered(typed("ncclAllGather", 6, ncclFloat64)));
    EXPECT_TRUE(all[2 * size - 1].eq(size - 1).all().item<bool>());

    const auto own = ranks_->reduce_scatter_sum(all);
    EXPECT_EQ(calls(), ordered(typed("ncclReduceScatter", 6, ncclFloat64)));  // the count of what comes out
    EXPECT_TRUE(own.eq(size * world_.rank()).all().item<bool>());
}

TEST_F(NcclCommunicator, LetsComputingGoOnUntilAnAsynchronousSumIsWaitedFor)
{
    calls();
    auto x = at::ones({4}, at::kFloat);
    auto work = ranks_->all_reduce_sum_async(x);
    EXPECT_EQ(calls(), (Calls{"cudaEventCreate", "cudaEventRecord event=0 stream=1",
                              "cudaStreamWaitEvent stream=2 event=0", "cudaEventDestroy",
                              typed("ncclAllReduce", 4, ncclFloat32), "cudaEventCreate",
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
    try {
        ranks_->all_reduce_sum(x);
        FAIL() << "the error was swallowed";
    } catch (const PeerLost& error) {
        EXPECT_NE(std::string(error.what()).find("ncclAllReduce"), std::string::npos) << error.what();
    }
    ranks_.reset();
    EXPECT_EQ(stand_in_.count("ncclCommAbort"), 1);
    EXPECT_EQ(stand_in_.count("ncclCommDestroy"), 0);
    EXPECT_EQ(stand_in_.count("ncclCommFinalize"), 0);
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
