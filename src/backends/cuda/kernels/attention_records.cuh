// What the planner (attention_schedule.h) tells the attention kernels: plain integers in device memory, read
// by every layer of a step. This file is compiled for both sides.
#pragma once

namespace cairn::cuda {

// A row of class decode.
struct DecodeRow {
  int q_row;       // its row in q and y
  int position;    // the last token it sees
  int begin;       // the first token it sees
  int parts;       // chunks it is cut into; 1: the decode kernel writes y itself
  int state_base;  // the state of chunk c (counted from token 0) and head h is vector (state_base + c) *
                   // heads + h
  int first_chunk;
  int mask_begin;  // tokens from here on are seen where the mask has a set bit
  int mask_at;     // the row's first word in the plan's masks
};

// Some rows against one chunk of tokens, for every KV head: consecutive rows of one sequence, or (shared
// items) rows of any sequences whose pages are the same there.
struct DecodeItem {
  int first_row, rows;         // DecodeRows; shared items: entries of shared_rows
  int token_begin, token_end;  // what any of the rows sees of the chunk
  int chunk;
  int table;  // where the sequence's pages begin in the tables
  int fresh;  // tokens from here on are written in this step
  int unused;
};

// Some rows of one sequence of class prompt against all they see, for one KV head.
struct PromptItem {
  int q_row, rows;             // in q and y
  int position;                // of the first row
  int kv_len;                  // tokens in the cache
  int token_begin, token_end;  // what any of the rows sees
  int table;
  int kv_head;
};

// The mask of a prompt item's rows.
struct PromptMask {
  int begin;  // tokens from here on are seen where the mask has a set bit
  int at;     // the first row's first word in the plan's masks
  int words;  // from row to row
  int unused;
};

// The head of a plan for one kind of layer; offsets in bytes from the plan's start, which is 16-byte aligned.
struct PlanHead {
  int decode_items;  // each stands for all KV heads
  int decode_rows;
  int prompt_items;
  int rows;  // of the step
  int decode_items_at, decode_rows_at, prompt_items_at;
  int tables_at;     // int page[]: the sequences' pages, one sequence after the other
  int row_slots_at;  // int slot[rows]: page * page tokens + token within the page; -1: the row is padding
  int masks_at;      // u32 words
  int shared_items;  // DecodeItems whose rows are named by a list
  int shared_items_at;
  int shared_rows_at;   // int[]: indices of DecodeRows
  int prompt_masks_at;  // PromptMask per prompt item, where the kind of layer has masks
  int unused[2];
};

}  // namespace cairn::cuda
