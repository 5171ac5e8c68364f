/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: what becomes of VMs, below events/nvhv in tracefs. Times are in ns. Fields may be added; docs/abi.md.
 * Documentation: Documentation/trace/tracepoints.rst
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM nvhv

#if !defined(NVHV_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define NVHV_EVENTS_H

#include <linux/tracepoint.h>

/* A process is bound to a name. policy: the bits of life::Policy. */
TRACE_EVENT(nvhv_bind,
	TP_PROTO(const char *vm, u64 policy),
	TP_ARGS(vm, policy),
	TP_STRUCT__entry(__string(vm, vm) __field(u64, policy)),
	TP_fast_assign(__assign_str(vm); __entry->policy = policy;),
	TP_printk("vm=%s policy=%llu", __get_str(vm), __entry->policy)
);

/* The RAM of a new VM was placed in the pool. */
TRACE_EVENT(nvhv_adopt,
	TP_PROTO(const char *vm, u64 pages, u64 ns),
	TP_ARGS(vm, pages, ns),
	TP_STRUCT__entry(__string(vm, vm) __field(u64, pages) __field(u64, ns)),
	TP_fast_assign(__assign_str(vm); __entry->pages = pages; __entry->ns = ns;),
	TP_printk("vm=%s pages=%llu ns=%llu", __get_str(vm), __entry->pages, __entry->ns)
);

/* Nothing of a VM moves any more, so long after the trigger. */
TRACE_EVENT(nvhv_freeze,
	TP_PROTO(const char *vm, u64 ns),
	TP_ARGS(vm, ns),
	TP_STRUCT__entry(__string(vm, vm) __field(u64, ns)),
	TP_fast_assign(__assign_str(vm); __entry->ns = ns;),
	TP_printk("vm=%s ns=%llu", __get_str(vm), __entry->ns)
);

/* A VM is sealed, with a record of so many bytes, so long after the trigger. */
TRACE_EVENT(nvhv_seal,
	TP_PROTO(const char *vm, const char *cause, u64 bytes, u64 ns),
	TP_ARGS(vm, cause, bytes, ns),
	TP_STRUCT__entry(__string(vm, vm) __string(cause, cause) __field(u64, bytes) __field(u64, ns)),
	TP_fast_assign(__assign_str(vm); __assign_str(cause); __entry->bytes = bytes; __entry->ns = ns;),
	TP_printk("vm=%s cause=%s bytes=%llu ns=%llu", __get_str(vm), __get_str(cause), __entry->bytes, __entry->ns)
);

/* A fresh VMM was told what the guest had configured. */
TRACE_EVENT(nvhv_replay,
	TP_PROTO(const char *vm, u64 steps),
	TP_ARGS(vm, steps),
	TP_STRUCT__entry(__string(vm, vm) __field(u64, steps)),
	TP_fast_assign(__assign_str(vm); __entry->steps = steps;),
	TP_printk("vm=%s steps=%llu", __get_str(vm), __entry->steps)
);

/* A VM goes on, for the number-th time; ns: rebuilding it. */
TRACE_EVENT(nvhv_resume,
	TP_PROTO(const char *vm, u64 number, u64 ns),
	TP_ARGS(vm, number, ns),
	TP_STRUCT__entry(__string(vm, vm) __field(u64, number) __field(u64, ns)),
	TP_fast_assign(__assign_str(vm); __entry->number = number; __entry->ns = ns;),
	TP_printk("vm=%s number=%llu ns=%llu", __get_str(vm), __entry->number, __entry->ns)
);

/* A name, or its VM, was refused. The text comes last, as it has spaces. */
TRACE_EVENT(nvhv_refuse,
	TP_PROTO(const char *vm, int error, const char *why),
	TP_ARGS(vm, error, why),
	TP_STRUCT__entry(__string(vm, vm) __field(int, error) __string(why, why)),
	TP_fast_assign(__assign_str(vm); __entry->error = error; __assign_str(why);),
	TP_printk("vm=%s errno=%d why=%s", __get_str(vm), __entry->error, __get_str(why))
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE nvhv_events
#include <trace/define_trace.h>
