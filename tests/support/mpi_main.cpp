#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdlib>

// main() of every test: the ranks run the same tests; only rank 0 and failing ranks speak.
int main(int argc, char** argv)
{
    // Sums of matrix products must not depend on the batch or the threads; read before LibTorch's first call.
    setenv("MKL_CBWR", "AUTO,STRICT", 0);
    testing::InitGoogleTest(&argc, argv);
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    if (rank != 0) {
        auto* printer = listeners.Release(listeners.default_result_printer());
        struct FailuresOnly : testing::EmptyTestEventListener {
            explicit FailuresOnly(testing::TestEventListener* p) : inner(p) {}
            void OnTestPartResult(const testing::TestPartResult& result) override
            {
                if (result.failed()) inner->OnTestPartResult(result);
            }
            std::unique_ptr<testing::TestEventListener> inner;
        };
        listeners.Append(new FailuresOnly(printer));
    }
    const int failed = RUN_ALL_TESTS();
    int any = failed;
    MPI_Allreduce(MPI_IN_PLACE, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return any;
}
