/* SPDX-License-Identifier: GPL-2.0 */
/* A thread of the highest priority on each CPU, and cross calls that wait for nobody. */
#ifndef NVHV_CPUS_H
#define NVHV_CPUS_H

#include <linux/types.h>

struct task_struct;

/* From now on function runs, in process context, in a bound real-time thread of each CPU that is woken. */
int nvhv_cpus_start(void (*function)(void));
/* Ends the threads; nobody wakes one any more. */
void nvhv_cpus_stop(void);
/* Wakes the threads of the other CPUs by an interrupt each, from any context. How many. */
unsigned int nvhv_cpus_wake_others(void);
/* Wakes that of this CPU as soon as it takes interrupts, from any context. */
void nvhv_cpus_wake_here(void);

/*
 * Writes back the caches of this CPU, and asks all others but one to do the same, without waiting for
 * them. How many were asked, or -EBUSY if one has yet to answer the last call. One caller at a time.
 */
int nvhv_cpus_write_back(unsigned int but);
/* How many have answered. */
int nvhv_cpus_written_back(void);
void nvhv_wbinvd(void);
void nvhv_touch_watchdogs(void);

int nvhv_this_cpu(void);
int nvhv_this_node(void);
void nvhv_irq_enable(void);
/* Current comes before others from now on, unless it is the idle task. */
void nvhv_hurry(void);

/* The scheduler of the other CPUs, if there are any, does without this one, whose run queue may stay locked. */
void nvhv_cpu_give_up(void);
void nvhv_cpu_take_back(void);
/* A task that may run on the CPU that was given up only, and sleeps, may run on all others. */
void nvhv_allow_elsewhere(struct task_struct *task);
/* Nobody waits for the current task, which makes no step any more, to leave its CPU. */
void nvhv_never_wake_current(void);
/* Whether a task ran on this CPU last. */
bool nvhv_was_on(struct task_struct *task, unsigned int cpu);
/* Panics on this CPU, as another one that has begun to does not get on. */
void nvhv_panic_for_other(void);

#endif
