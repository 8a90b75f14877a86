// One step of the GPU's executor: the step's rows in the order of their class, and what each instruction
// launches (step_operations.cpp).
#pragma once

#include <cassert>
#include <span>
#include <vector>

#include "backends/cuda/executor.h"
#include "backends/cuda/products.h"
#include "backends/cuda/row_kernels.h"

namespace cairn::cuda {

// Of the plain kernels' cache; the attention engine has its own forms. Throws Error(unsupported).
Element plain_cache_element(const kv::KvConfig&);

class Executor::Step {
 public:
  // scores_only: what the sequences say of drawing is not looked at.
  Step(Executor&, std::span<const backends::SequenceStep>, Slot&, bool scores_only);

  // The modules of all products and lookups, as a step of both classes would ask for them.
  std::vector<Variant> variants();

  // Hands the step's inputs over. The trace, if any, gets the times of the stages that follow.
  void begin(program::Trace*);
  // Hands the stage over; slot.done and slot.result say when it has ended and what it computed.
  void enqueue(size_t stage);
  // The same, and waits.
  backends::StepResult run(size_t stage);
  void hand_in(program::Value, const std::byte* rows);
  const std::byte* hand_out(program::Value);

 private:
  void upload_inputs();
  void describe_draws();
  void decode_embeddings(const program::Embed&, std::byte* to);
  void launch_stage(const program::Stage&);
  void prepare();
  void launch(size_t instruction);
  void finish_stage(const program::Stage&);
  void draw();
  void download();
  void download_scores();
  void run_traced(const program::Stage&);
  backends::StepResult result(bool scored) const;

  int64_t rows(program::Value v) const { return sizes_.of(program_.info(v).shape.front()); }
  int64_t width(program::Value v) const { return program_.width(v); }
  int64_t count(program::Value v) const { return rows(v) * width(v); }
  int64_t logits_words() const { return program_.logits ? sizes_.logits * width(program_.logits) : 0; }
  // Every row is a new token of another sequence: such steps repeat, and their kernels are short.
  bool only_answers() const {
    return decode_rows_ == sizes_.tokens && int64_t(sequences_.size()) == sizes_.tokens;
  }
  bool is_last(const program::Stage& s) const { return s.end == int32_t(program_.instructions.size()); }
  Address input(int64_t word) const { return e_.inputs_.address() + Address(word) * 4; }
  Operand at(program::Value) const;
  // Per row of the step: its tokens, or its logit rows, whose order is always the caller's.
  size_t row_bytes(program::Value v) const;
  RowOrder order_of(program::Value) const;

  void execute(const program::Embed&);
  void execute(const program::GatherRows&);
  void execute(const program::MatMul&);
  void execute(const program::GatedMatMul&);
  void execute(const program::Logits&);
  void execute(const program::Activate&);
  void execute(const program::GatedActivation&);
  void execute(const program::Add&);
  void execute(const program::Clamp&);
  void execute(const program::SoftCap&);
  void execute(const program::GateRows&);
  void execute(const program::RmsNorm&);
  void execute(const program::LayerNorm&);
  void execute(const program::AddRmsNorm&);
  void execute(const program::Rope&);
  void execute(const program::KvWrite&);
  void execute(const program::Attention&);
  void execute(const program::Route&);
  void execute(const program::ExpertMatMul&);
  void execute(const program::DecodeGroup&);
  void execute(const program::LowRankMlp&) { assert(false); }  // the engine fuses so for the CPU alone
  void execute(const program::LowRankAttention&) { assert(false); }
  void execute(const program::ExpertCombine&);

  // x for a product with this weight: the fast kernels read bf16, also of values that are kept in f32.
  Operand left_side(program::Value x, program::Weight);
  // What a product is for the fast kernels.
  MatMulCall call(Operand x, program::Weight, program::Weight bias, Operand y, int64_t m) const;
  // Collecting, a call only says which modules it will need.
  void multiply(std::span<const MatMulCall>, int64_t decode_rows);
  void plain(Operand x, program::Weight, program::Weight bias, Operand y, int64_t m);
  PlainCache cache(int32_t slot) const;
  DeviceKv device_kv() const { return DeviceKv::at(e_.kv_memory_.address(), e_.kv_.config()); }

  Executor& e_;
  const program::Program& program_;
  std::span<const backends::SequenceStep> sequences_;
  Slot& slot_;
  bool scores_only_ = false;
  bool draws_ = false, feeds_ = false;  // tokens are drawn; tokens of the step before are fed
  program::Bounds sizes_;
  int64_t decode_rows_ = 0;
  attention::AttentionPlan attention_plan_;
  std::vector<backends::RowClass> classes_;
  std::vector<Variant>* collected_ = nullptr;
  RowLauncher launch_;
  SampleLauncher sampler_;
  std::vector<Address> rope_tables_;
  size_t instruction_ = 0;
  program::Value converted_of_;  // whose bf16 copy the running instruction has made
  bool after_copy_ = true;
  program::Trace* trace_ = nullptr;
  RowOrder rows_;
};

}  // namespace cairn::cuda
