#include "train/meters.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace astroclip::train {

StepReport agree(const comm::World& world, const StepReport& own)
{
    std::vector<double> values{own.loss,
                               own.finite ? 0.0 : 1.0,
                               own.stop ? 1.0 : 0.0,
                               own.checkpoint_due ? 1.0 : 0.0,
                               own.data_wait_s,
                               own.step_s,
                               own.mem_bytes};
    const auto fixed = values.size();
    for (const auto& [name, value] : own.terms) {
        values.push_back(value);
    }
    const auto all = world.all_gather(values);
    StepReport agreed = own;
    agreed.loss = 0;
    for (auto& [name, value] : agreed.terms) {
        value = 0;
    }
    for (int rank = 0; rank < world.size(); ++rank) {
        const auto* of_rank = all.data() + static_cast<std::size_t>(rank) * values.size();
        agreed.loss += of_rank[0] / world.size();
        if (of_rank[1] != 0) {
            agreed.bad_ranks.push_back(rank);
        }
        agreed.stop = agreed.stop || of_rank[2] != 0;
        agreed.data_wait_s = std::max(agreed.data_wait_s, of_rank[4]);
        agreed.step_s = std::max(agreed.step_s, of_rank[5]);
        agreed.mem_bytes = std::max(agreed.mem_bytes, of_rank[6]);
        auto term = fixed;
        for (auto& [name, value] : agreed.terms) {
            value += of_rank[term++] / world.size();
        }
    }
    agreed.finite = agreed.bad_ranks.empty();
    agreed.checkpoint_due = all[3] != 0;
    return agreed;
}

nlohmann::json step_metrics(const StepReport& report, const Rates& rates,
                            const std::map<std::string, double>& norms)
{
    nlohmann::json line = {{"loss", report.loss},
                           {"lr", rates.learning_rate},
                           {"weight_decay", rates.weight_decay},
                           {"data_wait_s", report.data_wait_s},
                           {"step_s", report.step_s},
                           {"mem_bytes", report.mem_bytes}};
    for (const auto& [name, value] : report.terms) {
        line[name] = value;
    }
    for (const auto& [group, norm] : norms) {
        line[group.empty() ? "grad_norm" : "grad_norm_" + group] = norm;
    }
    return line;
}

double resident_bytes()
{
    std::ifstream file("/proc/self/statm");
    double total = 0, resident = 0;
    file >> total >> resident;
    return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

}  // namespace astroclip::train
