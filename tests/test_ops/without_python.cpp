// Uses the extension in a program that has libtorch and no Python: a selective
// scan and its gradients beside the same recurrence in PyTorch's operators.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

using at::Tensor;
using Optional = std::optional<Tensor>;
using Scan = Tensor(const Tensor& u, const Tensor& delta, const Tensor& A,
                    const Tensor& B, const Tensor& C, const Optional& D,
                    const Optional& delta_bias, bool delta_softplus);

namespace {

Tensor scan_step_by_step(const Tensor& u, const Tensor& delta, const Tensor& A,
                         const Tensor& B, const Tensor& C) {
  Tensor state = at::zeros({u.size(0), u.size(1), A.size(1)}, u.options());
  std::vector<Tensor> results;
  for (int64_t t = 0; t < u.size(2); ++t) {
    const Tensor step = delta.select(2, t).unsqueeze(2);
    const Tensor added = u.select(2, t).unsqueeze(2) * step;
    state = at::exp(step * A) * state + added * B.select(2, t).unsqueeze(1);
    results.push_back((state * C.select(2, t).unsqueeze(1)).sum(2));
  }
  return at::stack(results, 2);
}

std::vector<Tensor> draw_inputs() {
  at::manual_seed(0);
  const auto options = at::device(at::kCPU).dtype(at::kDouble);
  std::vector<Tensor> inputs = {
      at::randn({2, 5, 70}, options), at::rand({2, 5, 70}, options),
      -at::rand({5, 3}, options), at::randn({2, 3, 70}, options),
      at::randn({2, 3, 70}, options)};
  for (Tensor& tensor : inputs) tensor.requires_grad_(true);
  return inputs;
}

// The result and the gradients of all inputs.
template <typename Function>
std::vector<Tensor> run(const Function& scan) {
  const std::vector<Tensor> inputs = draw_inputs();
  std::vector<Tensor> results = {
      scan(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4])};
  results[0].square().sum().backward();
  for (const Tensor& tensor : inputs) results.push_back(tensor.grad());
  return results;
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
  const auto op = c10::Dispatcher::singleton()
                      .findSchemaOrThrow("mmssm::selective_scan", "")
                      .typed<Scan>();
  const auto native = [&](const Tensor& u, const Tensor& delta, const Tensor& A,
                          const Tensor& B, const Tensor& C) {
    return op.call(u, delta, A, B, C, std::nullopt, std::nullopt, false);
  };
  const auto got = run(native), want = run(scan_step_by_step);
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i)
    error = std::max(error, (got[i] - want[i]).abs().max().item<double>());
  std::cout << got.size() << " results, python loaded: " << python_is_loaded()
            << ", close: " << (error < 1e-9) << "\n";
  return 0;
}
