// SPDX-License-Identifier: GPL-2.0
/* The tracepoints as functions, which Rust can call. */
#define CREATE_TRACE_POINTS
#include "nvhv_events.h"

#include "events.h"

void nvhv_trace_bind(const char *vm, u64 policy) { trace_nvhv_bind(vm, policy); }
void nvhv_trace_adopt(const char *vm, u64 pages, u64 ns) { trace_nvhv_adopt(vm, pages, ns); }
void nvhv_trace_freeze(const char *vm, u64 ns) { trace_nvhv_freeze(vm, ns); }
void nvhv_trace_seal(const char *vm, const char *cause, u64 bytes, u64 ns) { trace_nvhv_seal(vm, cause, bytes, ns); }
void nvhv_trace_replay(const char *vm, u64 steps) { trace_nvhv_replay(vm, steps); }
void nvhv_trace_resume(const char *vm, u64 number, u64 ns) { trace_nvhv_resume(vm, number, ns); }
void nvhv_trace_refuse(const char *vm, int error, const char *why) { trace_nvhv_refuse(vm, error, why); }
