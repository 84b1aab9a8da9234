#include "data/loader.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>
#include <thread>

#include "core/error.hpp"
#include "support/ranks.hpp"
#include "support/tiny_survey.hpp"

namespace astroclip::data {
namespace {

class Galaxies48 : public testing::Test {
protected:
    Galaxies48() : ranks_(test::all_ranks())
    {
        survey_.folder = test::scratch_folder(ranks_.world, "loader");
        survey_.bins = 64;
        test::write_images(ranks_.world, survey_);
        test::write_spectra(ranks_.world, survey_);
        test::write_pairs(ranks_.world, survey_);
    }
    ~Galaxies48() override { test::remove_scratch(ranks_.world, survey_.folder); }

    Stores all_stores() const
    {
        return {.images = survey_.images(), .spectra = survey_.spectra(), .pairs = survey_.pairs()};
    }
    static at::Tensor tensor(const std::vector<float>& values) { return at::tensor(values); }

    test::Ranks ranks_;
    test::TinySurvey survey_;
};

TEST_F(Galaxies48, AreOneAGalaxyWithBothItsRows)
{
    const Galaxies galaxies(all_stores());
    ASSERT_EQ(galaxies.size(), 48 + 4);  // 44 pairs, 4 images and 4 spectra without a partner
    std::set<std::int64_t> images, spectra;
    for (std::int64_t i = 0; i < galaxies.size(); ++i) {
        const auto& galaxy = galaxies[i];
        if (galaxy.image_row >= 0) {
            EXPECT_EQ(survey_.image_id(galaxy.image_row), galaxy.object_id);
            images.insert(galaxy.image_row);
        }
        if (galaxy.spectrum_row >= 0) {
            EXPECT_EQ(survey_.spectrum_id(galaxy.spectrum_row), galaxy.object_id);
            spectra.insert(galaxy.spectrum_row);
        }
    }
    EXPECT_EQ(images.size(), 48u);
    EXPECT_EQ(spectra.size(), 48u);
    EXPECT_EQ(galaxies.paired(false).size() + galaxies.paired(true).size(), 44u);
}

TEST_F(Galaxies48, AreReadInTheOrderAskedFor)
{
    const Galaxies galaxies(all_stores());
    const std::vector<std::int64_t> numbers{7, 46, 6, 51, 8, 7};  // 46 has no spectrum, 51 no image
    const auto batch = galaxies.read(numbers);
    ASSERT_EQ(batch.images.sizes(), (std::vector<std::int64_t>{6, 3, 16, 16}));
    ASSERT_EQ(batch.spectra.sizes(), (std::vector<std::int64_t>{6, 64}));
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        const auto id = galaxies[numbers[i]].object_id;
        const auto at = static_cast<std::int64_t>(i);
        EXPECT_EQ(batch.object_ids[i], id);
        const auto image = batch.has_image[i] ? tensor(test::tiny_image(id, 16)) : at::zeros({768});
        const auto spectrum = batch.has_spectrum[i] ? tensor(test::tiny_spectrum(id, 64)) : at::zeros({64});
        EXPECT_TRUE(batch.images[at].flatten().equal(image)) << i;
        EXPECT_TRUE(batch.spectra[at].equal(spectrum)) << i;
    }
    EXPECT_EQ(batch.has_spectrum[1], 0);
    EXPECT_EQ(batch.has_image[3], 0);
}

TEST_F(Galaxies48, AreOnOneSideOfTheSplitInEveryStore)
{
    const Galaxies both(all_stores());
    std::set<std::int64_t> held_out;
    for (const auto number : both.members(true)) {
        held_out.insert(both[number].object_id);
    }
    EXPECT_FALSE(held_out.empty());
    for (const auto& stores : {Stores{.images = survey_.images(), .pairs = survey_.pairs()},
                               Stores{.spectra = survey_.spectra(), .pairs = survey_.pairs()}}) {
        const Galaxies one(stores);
        for (std::int64_t i = 0; i < one.size(); ++i) {
            // also those without a partner, which the pairs do not list
            EXPECT_EQ(one[i].test, held_out.count(one[i].object_id) == 1) << one[i].object_id;
        }
    }
}

TEST_F(Galaxies48, RefuseStoresThatDoNotBelongTogether)
{
    EXPECT_THROW(Galaxies(Stores{}), ConfigError);
    EXPECT_THROW(Galaxies({.images = survey_.images(), .spectra = survey_.spectra()}), ConfigError);
    EXPECT_THROW(Galaxies({.images = survey_.folder + "/nothing"}), MissingInput);
    auto other = survey_;
    other.folder = survey_.folder + "/other";
    other.galaxies = 44;
    test::write_spectra(ranks_.world, other);
    EXPECT_THROW(Galaxies({.spectra = other.spectra(), .pairs = survey_.pairs()}), DataError);
}

TEST_F(Galaxies48, AreLoadedInTheSamplersOrderFromAnyStep)
{
    const Galaxies galaxies({.spectra = survey_.spectra()});
    const auto members = galaxies.members(false);
    Sampler sampler(static_cast<std::int64_t>(members.size()), 8, 3);
    Loader loader(galaxies, members, sampler, ranks_.rank(), ranks_.size());
    EXPECT_THROW(loader.next(), InternalError);
    for (const std::int64_t start : {0, 9, 2}) {
        loader.seek(start);
        for (auto step = start; step < start + 5; ++step) {
            const auto batch = loader.next();
            const auto expected = sampler.slice(step, ranks_.rank(), ranks_.size());
            ASSERT_EQ(batch.object_ids.size(), expected.size());
            for (std::size_t i = 0; i < expected.size(); ++i) {
                EXPECT_EQ(batch.object_ids[i],
                          galaxies[members[static_cast<std::size_t>(expected[i])]].object_id);
            }
            EXPECT_TRUE(batch.spectra[0].equal(tensor(test::tiny_spectrum(batch.object_ids[0], 64))));
            EXPECT_FALSE(batch.images.defined());
        }
    }
}

TEST_F(Galaxies48, ThatWentBadOnDiskAreAnErrorOfTheBatch)
{
    const Galaxies galaxies({.spectra = survey_.spectra()});
    ranks_.world.barrier();
    ranks_.world.on_root([&] {
        const auto part = survey_.spectra() + "/part-00000.h5";
        const auto size = std::filesystem::file_size(part);
        std::fstream file(part, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(size / 4));
        file << std::string(size / 2, '\xff');
    });
    std::vector<std::int64_t> first_rows(16);
    std::iota(first_rows.begin(), first_rows.end(), 0);
    Loader loader(galaxies, first_rows, Sampler(16, 8, 3), ranks_.rank(), ranks_.size());
    loader.seek(0);
    EXPECT_THROW(loader.next(), DataError);
    ranks_.world.barrier();
}

// A reading of steps that counts them; each takes a while.
struct Counted {
    std::atomic<int> begun{0}, ended{0}, at_once{0}, most_at_once{0};
    std::mutex guard;
    std::set<std::thread::id> threads;
    std::chrono::milliseconds takes{0};

    Batch operator()(std::span<const std::int64_t> numbers)
    {
        ++begun;
        most_at_once = std::max(most_at_once.load(), ++at_once);
        {
            const std::lock_guard lock(guard);
            threads.insert(std::this_thread::get_id());
        }
        std::this_thread::sleep_for(takes);
        --at_once;
        ++ended;
        Batch batch;
        batch.object_ids.assign(numbers.begin(), numbers.end());
        return batch;
    }
    Loader loader(std::int64_t samples, int ahead)
    {
        std::vector<std::int64_t> members(static_cast<std::size_t>(samples));
        std::iota(members.begin(), members.end(), 0);
        return Loader([this](std::span<const std::int64_t> numbers) { return (*this)(numbers); }, members,
                      Sampler(samples, 8, 3), 0, 1, ahead);
    }
};

TEST(Loader, HoldsNoMoreStepsThanItMayAndReadsThemInOneThread)
{
    Counted counted;
    auto loader = counted.loader(4000, 3);
    loader.seek(0);
    for (int step = 0; step < 20; ++step) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));  // it could read many meanwhile
        EXPECT_LE(counted.begun, step + 3);
        loader.next();
    }
    EXPECT_EQ(counted.most_at_once, 1);
    EXPECT_EQ(counted.threads.size(), 1u);
    EXPECT_EQ(counted.threads.count(std::this_thread::get_id()), 0u);
}

TEST(Loader, NeverKeepsAStepWaitingThatTakesLongerThanReading)
{
    Counted counted;
    counted.takes = std::chrono::milliseconds(10);
    auto loader = counted.loader(4000, 2);
    loader.seek(0);
    loader.next();
    for (int step = 1; step <= 20; ++step) {
        // Computing, for as long as reading takes on this machine just now: the next step's batch is read
        // meanwhile, though nobody asks for it.
        for (int ms = 0; counted.ended <= step && ms < 60000; ++ms) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        ASSERT_GT(counted.ended, step);
        loader.next();
    }
}

TEST(Loader, CostsAStepTheSameInAnyStore)
{
    // 76 million galaxies of the survey: an epoch's blocks are shuffled once, and nothing else grows.
    Sampler sampler(76'000'000, 1440, 1);
    const auto start = std::chrono::steady_clock::now();
    sampler.slice(0, 0, 8);  // the epoch's blocks
    const auto first = std::chrono::steady_clock::now();
    for (std::int64_t step = 1; step <= 200; ++step) sampler.slice(step, 0, 8);
    const std::chrono::duration<double> begin = first - start,
                                        steps = std::chrono::steady_clock::now() - first;
    EXPECT_LT(begin.count(), 5);           // once an epoch; 0.4 s on a busy machine
    EXPECT_LT(steps.count() / 200, 0.01);  // 0.0001 s there
    RecordProperty("epoch_s", std::to_string(begin.count()));
    RecordProperty("step_s", std::to_string(steps.count() / 200));
}

TEST(InOrder, CutsAtMultiplesOfTheComputeBatch)
{
    std::vector<std::int64_t> sizes;
    for (const auto& piece : in_order({32, 150}, 32)) {
        sizes.push_back(piece.size());
    }
    EXPECT_EQ(sizes, (std::vector<std::int64_t>{32, 32, 32, 22}));
    EXPECT_TRUE(in_order({64, 64}, 32).empty());
    EXPECT_EQ(padded(at::ones({3, 2}), 5).sum().item<float>(), 6);
}

TEST(Share, CoversEveryNumberOnceOverTheRanks)
{
    std::vector<std::int64_t> numbers(21);
    for (const int ranks : {1, 2, 4}) {
        std::size_t covered = 0;
        for (std::int64_t step = 0; step < 3; ++step) {
            for (int rank = 0; rank < ranks; ++rank) {
                covered += share(numbers, step, 8, rank, ranks).size();
            }
        }
        EXPECT_EQ(covered, numbers.size());
    }
}

}  // namespace
}  // namespace astroclip::data
