#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/simulate/galaxy.hpp"
#include "tools/simulate/imaging.hpp"

namespace astroclip::simulate {

// The questions of Galaxy Zoo DECaLS (GZD-5) that simulated images can answer, with its names. Bars, winding
// and number of arms (always two), boxy bulges and mergers are not drawn, or not to be seen in this seeing.
struct Poll {
    std::string question;
    std::vector<std::string> answers;
};
enum PollNumber : std::size_t { smooth_or_featured, edge_on, how_rounded, spiral_arms, bulge_size };
const std::vector<Poll>& polls();  // in the order of PollNumber

// The chance of each answer of each poll, for a volunteer who is asked: smooth in the truth (light of bulge,
// disk and arms, axis ratios), so far as the seeing in r shows it. They add up to 1.
std::vector<std::vector<double>> answer_chances(const Galaxy& galaxy, const Imaging& imaging);

// How many of about 40 volunteers gave each answer of each poll; a galaxy in twenty was shown to ten at most.
// As there, who says smooth is asked how round, who says featured whether it is a disk on edge, and if not,
// about arms and bulge. A function of (galaxy, imaging, seed) from a stream of its own.
std::vector<std::vector<int>> votes_on(const Galaxy& galaxy, const Imaging& imaging, std::uint64_t seed);

}  // namespace astroclip::simulate
