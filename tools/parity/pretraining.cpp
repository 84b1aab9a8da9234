#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "nn/dino_head.hpp"
#include "nn/resnet.hpp"
#include "nn/vision_transformer.hpp"
#include "ssl/dino_loss.hpp"
#include "ssl/info_nce.hpp"
#include "ssl/moco_loss.hpp"
#include "tools/parity/case.hpp"
#include "train/ema.hpp"
#include "train/optimizer.hpp"
#include "train/schedule.hpp"

namespace astroclip::parity {

namespace {

// A centre that goes on from the file's.
ssl::DinoCentre centre_from(const at::Tensor& start, double momentum)
{
    const auto prototypes = start.size(-1);
    ssl::DinoCentre centre(prototypes, momentum);
    centre.load_state(
        {{"centre", start.view({1, prototypes})}, {"next_centre", start.view({1, prototypes})}});
    return centre;
}

ssl::DinoCentre centre_of(const Case& reference, const std::string& name)
{
    return centre_from(reference.tensor(name + "/state/center"),
                       reference.number("/constants/center_momentum"_json_pointer));
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

struct DinoNetwork : torch::nn::Module {
    DinoNetwork(const Case& reference, const std::string& state)
        : backbone(register_module("backbone", nn::VisionTransformer(vit_config(reference, "/config/model"))))
    {
        const auto head = [&](const char* key) {
            return int(reference.number(
                nlohmann::json::json_pointer(std::string("/config/overrides/dino/head_") + key)));
        };
        const nn::DinoHeadConfig config{.hidden = head("hidden_dim"),
                                        .bottleneck = head("bottleneck_dim"),
                                        .prototypes = head("n_prototypes")};
        dino_head = register_module("dino_head", nn::DinoHead(backbone->config().width, config));
        nn::load_strict(*this, reference.file(), state);
    }

    nn::VisionTransformer backbone;
    nn::DinoHead dino_head{nullptr};
};

// The tokens of the masked patches alone, [M, width].
at::Tensor masked_patches(const nn::ImageTokens& tokens, const at::Tensor& masks)
{
    return tokens.patches.flatten(0, 1).index_select(0, masks.flatten().nonzero().squeeze(1));
}

// One step of DINOv2 on the crops and masks of a case.
class DinoStep {
public:
    DinoStep(const Case& reference, const std::string& name, Report& report)
        : case_(reference),
          name_(name),
          report_(report),
          student_(reference, name + "/state/student."),
          teacher_(reference, name + "/state/teacher."),
          cls_centre_(centre_from(reference.tensor(name + "/state/dino_loss.center"), 0.9)),
          patch_centre_(centre_from(reference.tensor(name + "/state/ibot_patch_loss.center"), 0.9))
    {
    }

    void run(comm::Communicator& ranks)
    {
        compute_loss(ranks).backward();
        report_.compare_gradients(name_, student_, "student.");
        step();
        const auto compare = [&](const std::string& whose, const DinoNetwork& network) {
            for (const auto& [key, tensor] : nn::published_state(network)) {
                report_.compare_if_there(out("after." + whose + "." + key), tensor);
            }
        };
        compare("student", student_);
        compare("teacher", teacher_);
    }

private:
    std::string out(const std::string& tensor) const { return name_ + "/out/" + tensor; }
    double number(const std::string& key) const
    {
        return case_.number(nlohmann::json::json_pointer("/config/" + key));
    }

    at::Tensor compute_loss(comm::Communicator& ranks)
    {
        const auto images = case_.tensor(name_ + "/in/global_crops");
        const auto masks = case_.tensor(name_ + "/in/masks").to(at::kBool);
        const auto temperature = number("teacher_temp");
        at::Tensor cls_targets, patch_targets;
        {
            const at::NoGradGuard no_grad;
            const auto tokens = teacher_.backbone->forward_features(images);
            const auto cls = teacher_.dino_head->forward(tokens.cls);
            const auto patches = teacher_.dino_head->forward(masked_patches(tokens, masks));
            cls_targets = cls_centre_.targets(cls, temperature);
            patch_targets = patch_centre_.targets(patches, temperature);
            cls_centre_.update(ranks, cls);
            patch_centre_.update(ranks, ssl::group_means(patches, {patches.size(0)}));
            cls_centre_.targets(cls, temperature);
            patch_centre_.targets(patches, temperature);
            report_.compare_if_there(out("dino_center"), cls_centre_.centre());
            report_.compare_if_there(out("ibot_center"), patch_centre_.centre().unsqueeze(0));
        }
        const auto tokens = student_.backbone->forward_features(images, masks);
        const auto local = student_.backbone->forward_features(case_.tensor(name_ + "/in/local_crops"));
        const auto dino = ssl::dino_terms(student_.dino_head->forward(tokens.cls),
                                          student_.dino_head->forward(local.cls), cls_targets);
        const auto ibot = ssl::ibot_loss(student_.dino_head->forward(masked_patches(tokens, masks)),
                                         patch_targets, ssl::masked_patch_weights(masks), masks.size(0));
        const auto koleo = 0.1 * 2 * ssl::koleo_loss(tokens.cls, images.size(0) / 2);
        const auto total = dino.global + dino.local + ibot + koleo;
        report_.compare_if_there(out("dino_global_crops_loss"), dino.global);
        report_.compare_if_there(out("dino_local_crops_loss"), dino.local);
        report_.compare_if_there(out("ibot_loss"), ibot / 2);  // logged by halves
        report_.compare_if_there(out("koleo_loss"), koleo / 2);
        report_.compare_if_there(out("total_loss"), total);
        return total;
    }

    void step()
    {
        std::vector<train::Parameter> parameters;
        for (const auto& item : student_.named_parameters()) {
            const auto scale = train::dino_parameter_scale(item.key(), student_.backbone->config().depth);
            parameters.push_back({item.key(), item.value(), scale.learning_rate, scale.weight_decay,
                                  scale.last_layer, item.key().substr(0, item.key().find('.'))});
        }
        for (const auto& [group, norm] : train::clip_gradients(parameters, number("clip_grad"))) {
            report_.compare_if_there(out("grad_norm." + group), at::scalar_tensor(norm, at::kDouble));
        }
        train::AdamW(parameters, {}).step({number("lr"), number("last_layer_lr"), number("wd")});
        train::ema(teacher_.parameters(), student_.parameters(), number("teacher_momentum"));
    }

    const Case& case_;
    std::string name_;
    Report& report_;
    DinoNetwork student_, teacher_;
    ssl::DinoCentre cls_centre_, patch_centre_;
};

// Two convolutions and the projection, in place of a ResNet.
struct TinyEncoder : torch::nn::Module {
    TinyEncoder(const Case& reference, const std::string& state)
    {
        const auto width = std::int64_t(reference.number("/config/width"_json_pointer));
        conv1 = register_module("conv1", nn::Convolution(3, width, 3, 2));
        bn1 = register_module("bn1", nn::BatchNorm(width));
        conv2 = register_module("conv2", nn::Convolution(width, 2 * width, 3, 2));
        bn2 = register_module("bn2", nn::BatchNorm(2 * width));
        const auto dim = std::int64_t(reference.number("/config/dim"_json_pointer));
        fc = register_module("fc", nn::Projection(2 * width, dim));
        // Not by load_strict: a case stores counters as floating-point numbers too.
        const at::NoGradGuard no_grad;
        for (auto [name, tensor] : nn::published_state(*this)) {
            tensor.copy_(reference.tensor(state + name));
        }
    }
    at::Tensor forward(const at::Tensor& images) const
    {
        const auto first = at::relu(bn1->forward(conv1->forward(images)));
        const auto second = at::relu(bn2->forward(conv2->forward(first)));
        return fc->forward(second.mean(at::IntArrayRef({2, 3})));
    }

    nn::Convolution conv1{nullptr}, conv2{nullptr};
    nn::BatchNorm bn1{nullptr}, bn2{nullptr};
    nn::Projection fc{nullptr};
};

void run_moco_case(const Case& reference, const std::string& name, Report& report, comm::Communicator& ranks)
{
    const auto number = [&](const char* key) {
        return reference.number(nlohmann::json::json_pointer("/config") / key);
    };
    TinyEncoder query(reference, name + "/state/encoder_q."), key(reference, name + "/state/encoder_k.");
    ssl::MocoQueue queue(std::int64_t(number("dim")), std::int64_t(number("queue")), 0);
    queue.load_state({{"queue", reference.tensor(name + "/state/queue")},
                      {"queue_ptr", reference.indices(name + "/state/queue_ptr")}});

    train::ema(key.parameters(), query.parameters(), number("momentum"));
    const auto q = query.forward(reference.tensor(name + "/in/image_query"));
    const auto k = ssl::unit_rows(key.forward(reference.tensor(name + "/in/image_key")), 1e-12).detach();
    report.compare_if_there(name + "/out/keys", k);
    report.compare_if_there(name + "/out/logits", ssl::moco_logits(ssl::unit_rows(q, 1e-12), k, queue.keys(),
                                                                   number("temperature")));
    const auto loss = ssl::moco_loss(q, k, queue.keys(), number("temperature"));
    report.compare_if_there(name + "/out/loss", loss);
    loss.backward();
    report.compare_gradients(name, query, "encoder_q.");
    queue.push(ranks, k);
    const auto compare = [&](const std::string& start, const auto& tensors) {
        for (const auto& [tensor, value] : tensors) {
            report.compare_if_there(name + "/out/after." + start + tensor, value);
        }
    };
    compare("", queue.state());
    compare("encoder_q.", nn::published_state(query));
    compare("encoder_k.", nn::published_state(key));
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

void run_dino_step(const Case& reference, Report& report, const comm::World& world)
{
    const auto ranks = comm::make_mpi_communicator(world);
    for (const auto& name : reference.cases_with({"in/global_crops", "in/local_crops", "in/masks"})) {
        DinoStep(reference, name, report).run(*ranks);
    }
}

void run_moco(const Case& reference, Report& report, const comm::World& world)
{
    const auto ranks = comm::make_mpi_communicator(world);
    for (const auto& name : reference.cases_with({"in/image_query", "in/image_key", "state/queue"})) {
        run_moco_case(reference, name, report, *ranks);
    }
}

}  // namespace astroclip::parity
