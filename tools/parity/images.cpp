#include <ATen/ATen.h>

#include "comm/communicator.hpp"
#include "ssl/dino_loss.hpp"
#include "tools/parity/case.hpp"

namespace astroclip::parity {

namespace {

// A centre that goes on from the file's.
ssl::DinoCentre centre_of(const Case& reference, const std::string& name)
{
    const auto start = reference.tensor(name + "/state/center");
    const auto prototypes = start.size(-1);
    ssl::DinoCentre centre(prototypes, reference.number("/constants/center_momentum"_json_pointer));
    centre.load_state(
        {{"centre", start.view({1, prototypes})}, {"next_centre", start.view({1, prototypes})}});
    return centre;
}

struct Temperatures {
    double student, first_teacher, second_teacher;
    int iterations;
    explicit Temperatures(const Case& reference)
        : student(reference.number("/constants/student_temp"_json_pointer)),
          first_teacher(reference.number("/config/teacher_temps/0"_json_pointer)),
          second_teacher(reference.number("/config/teacher_temps/1"_json_pointer)),
          iterations(int(reference.number("/constants/sinkhorn_iterations"_json_pointer)))
    {
    }
};

void run_cls_losses(const Case& reference, const std::string& name, Report& report, comm::Communicator& ranks)
{
    const Temperatures t(reference);
    const auto out = [&](const char* tensor) { return name + "/out/" + tensor; };
    const auto first = reference.tensor(name + "/in/teacher_step0");
    const auto second = reference.tensor(name + "/in/teacher_step1");
    auto centre = centre_of(reference, name);
    report.compare_if_there(out("probs_step0"), centre.targets(first, t.first_teacher));
    centre.update(ranks, first);
    report.compare_if_there(out("center_before_step1"), centre.centre());
    const auto centred = centre.targets(second, t.second_teacher);
    report.compare_if_there(out("probs_step1"), centred);
    report.compare_if_there(out("center_at_step1"), centre.centre());
    centre.update(ranks, second);
    centre.targets(second, t.second_teacher);
    report.compare_if_there(out("center_after_step1"), centre.centre());

    const auto balanced = ssl::sinkhorn_targets(ranks, second, t.second_teacher, t.iterations);
    report.compare_if_there(out("sinkhorn"), balanced);
    const auto compare = [&](const at::Tensor& targets, const std::string& kind) {
        const auto student = reference.tensor(name + "/in/student").set_requires_grad(true);
        const auto loss = ssl::dino_cross_entropy(student, targets, targets.size(0) / 2, t.student);
        report.compare_if_there(name + "/out/loss" + kind, loss);
        loss.backward();
        report.compare_if_there(name + "/grad/student" + kind, student.grad());
    };
    compare(centred, "");
    compare(balanced, "_sinkhorn");
}

void run_patch_losses(const Case& reference, const std::string& name, Report& report,
                      comm::Communicator& ranks)
{
    const Temperatures t(reference);
    const auto out = [&](const char* tensor) { return name + "/out/" + tensor; };
    const auto masks = reference.tensor(name + "/in/masks").to(at::kBool);
    const auto teacher = reference.tensor(name + "/in/teacher_masked");
    auto centre = centre_of(reference, name);
    // The JSON does not say which of the two temperatures; the distribution does.
    const auto targets = centre.targets(teacher, t.second_teacher);
    report.compare_if_there(out("probs"), targets);
    report.compare_if_there(out("sinkhorn"),
                            ssl::sinkhorn_targets(ranks, teacher, t.second_teacher, t.iterations));
    centre.update(ranks, ssl::group_means(teacher, {teacher.size(0)}));
    centre.targets(teacher, t.second_teacher);
    report.compare_if_there(out("center_after"), centre.centre().unsqueeze(0));

    const auto weights = ssl::masked_patch_weights(masks);
    report.compare_if_there(out("masks_weight"), weights);
    const auto student = reference.tensor(name + "/in/student_masked").set_requires_grad(true);
    const auto loss = ssl::ibot_loss(student, targets, weights, masks.size(0), t.student);
    report.compare_if_there(out("loss_masked"), loss);
    loss.backward();
    report.compare_if_there(name + "/grad/student_masked", student.grad());
}

}  // namespace

void run_dino_losses(const Case& reference, Report& report, const comm::World& world)
{
    const auto ranks = comm::make_mpi_communicator(world);
    for (const auto& name : reference.cases_with({"in/teacher_step0", "in/teacher_step1", "in/student"})) {
        run_cls_losses(reference, name, report, *ranks);
    }
    for (const auto& name : reference.cases_with({"in/masks", "in/teacher_masked", "in/student_masked"})) {
        run_patch_losses(reference, name, report, *ranks);
    }
    for (const auto& name : reference.cases_with({"in/x", "out/neighbour"})) {
        const auto x = reference.tensor(name + "/in/x").set_requires_grad(true);
        report.compare(name + "/out/neighbour", ssl::nearest_in_group(x, x.size(0)));
        const auto loss = ssl::koleo_loss(x, x.size(0));
        report.compare_if_there(name + "/out/loss", loss);
        loss.backward();
        report.compare_if_there(name + "/grad/x", x.grad());
    }
}

}  // namespace astroclip::parity
