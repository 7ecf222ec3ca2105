// Uses the extension in a program that has libtorch and no Python: a scan and
// the op that computes its gradients, beside the same recurrence in PyTorch's
// operators.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

using at::Tensor;
using Optional = std::optional<Tensor>;
using Two = std::tuple<Tensor, Tensor>;
using Eight =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Scan = Two(const Tensor& x, const Tensor& dt, const Tensor& A,
                 const Tensor& B, const Optional& C, const Optional& D,
                 const Optional& dt_weight, const Optional& dt_bias,
                 const Tensor& routes, bool delta_softplus,
                 std::string_view output,
                 std::optional<at::ScalarType> out_dtype,
                 bool keep_checkpoints);
using ScanBackward = Eight(const Tensor& grad, const Tensor& checkpoints,
                           const Tensor& x, const Tensor& dt, const Tensor& A,
                           const Tensor& B, const Optional& C,
                           const Optional& D, const Optional& dt_weight,
                           const Optional& dt_bias, const Tensor& routes,
                           bool delta_softplus, std::string_view output);

namespace {

// x, dt, A, B and C of a scan along one route.
std::vector<Tensor> draw_inputs() {
  at::manual_seed(0);
  const auto options = at::device(at::kCPU).dtype(at::kDouble);
  return {at::randn({2, 70, 5}, options), at::rand({2, 70, 1, 5}, options),
          -at::rand({1, 5, 3}, options), at::randn({2, 70, 1, 3}, options),
          at::randn({2, 70, 1, 3}, options)};
}

// The result and, for the sum of its squares, the gradients of all inputs.
std::vector<Tensor> scan_step_by_step(std::vector<Tensor> inputs) {
  for (Tensor& tensor : inputs) tensor.requires_grad_(true);
  const Tensor &x = inputs[0], &A = inputs[2];
  Tensor state = at::zeros({2, 5, 3}, x.options());
  std::vector<Tensor> results;
  for (int64_t t = 0; t < x.size(1); ++t) {
    const Tensor step = inputs[1].select(1, t).squeeze(1).unsqueeze(2);
    const Tensor added = x.select(1, t).unsqueeze(2) * step;
    state = at::exp(step * A[0]) * state + added * inputs[3].select(1, t);
    results.push_back((state * inputs[4].select(1, t)).sum(2));
  }
  std::vector<Tensor> found = {at::stack(results, 1)};
  found[0].square().sum().backward();
  for (const Tensor& tensor : inputs) found.push_back(tensor.grad());
  return found;
}

template <typename Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .typed<Signature>();
}

// The same by the extension's ops.
std::vector<Tensor> scan_natively(const std::vector<Tensor>& in) {
  const auto scan = find_op<Scan>("mmssm::routed_selective_scan");
  const auto backward =
      find_op<ScanBackward>("mmssm::_routed_selective_scan_backward");
  const Optional none;
  const Tensor routes = at::arange(in[0].size(1)).unsqueeze(0);
  const auto [y, checkpoints] =
      scan.call(in[0], in[1], in[2], in[3], in[4], none, none, none, routes,
                false, "sum", std::nullopt, true);
  const auto grads =
      backward.call(2 * y, checkpoints, in[0], in[1], in[2], in[3], in[4], none,
                    none, none, routes, false, "sum");
  return {y,
          std::get<0>(grads),
          std::get<1>(grads),
          std::get<2>(grads),
          std::get<3>(grads),
          std::get<4>(grads)};
}

bool python_is_loaded() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line))
    for (const char* library : {"libpython", "libtorch_python"})
      if (line.find(library) != std::string::npos) return true;
  return false;
}

}  // namespace

int main(int, char** arguments) {
  if (!dlopen(arguments[1], RTLD_NOW)) {
    std::cerr << dlerror() << "\n";
    return 1;
  }
  const auto inputs = draw_inputs();
  const auto got = scan_natively(inputs), want = scan_step_by_step(inputs);
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i)
    error = std::max(error, (got[i] - want[i]).abs().max().item<double>());
  std::cout << got.size() << " results, python loaded: " << python_is_loaded()
            << ", close: " << (error < 1e-9) << "\n";
  return 0;
}
