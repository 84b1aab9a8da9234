#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "survey/inputs.hpp"

namespace astroclip::survey {

// What a file holds, as far as the plan must know.
struct FileContents {
    std::vector<std::int64_t> object_ids;  // of all its objects; no_id for one refused whatever its id
    std::string fingerprint{};
    std::string error{};  // why it cannot be read although its ids are known
};
inline constexpr std::int64_t no_id = INT64_MIN;

// Every input object, numbered: the files in their order, the objects of each in theirs. A store's parts are
// ranges of it. Of the objects with one id the first is taken and the others are duplicates. A file that
// cannot be read counts as its objects, or as one where they are not known. All ranks hold the same plan.
class Plan {
public:
    struct File {
        InputFile input;
        std::int64_t first = 0, objects = 0;  // plan positions [first, first + objects)
        std::string error;                    // why it cannot be read; ""
        bool missing = false;
        std::vector<std::int64_t> lost_ids{};  // of a file that cannot be read: what is known of its objects
    };
    struct Item {
        std::size_t file;
        std::int64_t index;  // in the file
    };

    // Collective. `contents` reads one file; the files are shared out over the ranks. A DataError of it makes
    // the file unreadable; a MissingInput ends all, unless `skip_missing`.
    static Plan make(const comm::World& world, std::vector<InputFile> inputs, bool skip_missing,
                     const std::function<FileContents(const InputFile&)>& contents);

    std::int64_t size() const { return size_; }
    const std::vector<File>& files() const { return files_; }
    Item item(std::int64_t position) const;
    bool is_duplicate(std::int64_t position) const;
    std::int64_t duplicates() const { return static_cast<std::int64_t>(duplicates_.size()); }
    const std::string& digest() const { return digest_; }  // of names, fingerprints and ids

private:
    void number(const std::vector<std::string>& summaries, const std::vector<std::int64_t>& ids);

    std::vector<File> files_;
    std::vector<std::int64_t> duplicates_;  // plan positions, ascending
    std::int64_t size_ = 0;
    std::string digest_;
};

}  // namespace astroclip::survey
