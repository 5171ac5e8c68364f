/* SPDX-License-Identifier: GPL-2.0 */
/* See nvhv_events.h. Strings end with a zero byte. From any context. */
#ifndef NVHV_TRACE_H
#define NVHV_TRACE_H

#include <linux/types.h>

void nvhv_trace_bind(const char *vm, u64 policy);
void nvhv_trace_adopt(const char *vm, u64 pages, u64 ns);
void nvhv_trace_freeze(const char *vm, u64 ns);
void nvhv_trace_seal(const char *vm, const char *cause, u64 bytes, u64 ns);
void nvhv_trace_replay(const char *vm, u64 steps);
void nvhv_trace_resume(const char *vm, u64 number, u64 ns);
void nvhv_trace_refuse(const char *vm, int error, const char *why);

#endif
