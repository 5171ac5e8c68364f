// SPDX-License-Identifier: GPL-2.0
/* Per-CPU threads and cross calls: what needs per-CPU variables, which Rust cannot declare; see cpus.h. */
#include <linux/cpumask.h>
#include <linux/irq_work.h>
#include <linux/nmi.h>
#include <linux/panic.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/smpboot.h>
#include <uapi/linux/sched/types.h>
#include <asm/special_insns.h>

#include "aside.h"
#include "cpus.h"

static DEFINE_PER_CPU(struct task_struct *, thread);
static DEFINE_PER_CPU(bool, called);
static void (*work)(void);

static int should_run(unsigned int cpu) { return READ_ONCE(*per_cpu_ptr(&called, cpu)); }

static void run(unsigned int cpu)
{
	WRITE_ONCE(*per_cpu_ptr(&called, cpu), false);
	work();
}

static void setup(unsigned int cpu) { sched_set_fifo(current); }

static struct smp_hotplug_thread threads = {
	.store = &thread,
	.setup = setup,
	.thread_should_run = should_run,
	.thread_fn = run,
	.thread_comm = "nvhv-cpu/%u",
};

int nvhv_cpus_start(void (*function)(void))
{
	work = function;
	return smpboot_register_percpu_thread(&threads);
}

void nvhv_cpus_stop(void)
{
	/* No call is on its way: a call that was sent while interrupts were on has been taken. */
	kick_all_cpus_sync();
	smpboot_unregister_percpu_thread(&threads);
}

static void wake(void *unused)
{
	this_cpu_write(called, true);
	wake_up_process(this_cpu_read(thread));
}

static DEFINE_PER_CPU(call_single_data_t, wake_call) = CSD_INIT(wake, NULL);

unsigned int nvhv_cpus_wake_others(void)
{
	unsigned int here = raw_smp_processor_id(), cpu, reached = 0;

	for_each_online_cpu(cpu) {
		if (cpu != here && !smp_call_function_single_async(cpu, per_cpu_ptr(&wake_call, cpu)))
			reached++;
	}
	return reached;
}

static void wake_here(struct irq_work *unused) { wake(NULL); }

void nvhv_cpus_wake_here(void)
{
	static struct irq_work work = IRQ_WORK_INIT_HARD(wake_here);

	irq_work_queue(&work);
}

static atomic_t written_back;

static void write_back(void *unused)
{
	wbinvd();
	atomic_inc(&written_back);
}

static DEFINE_PER_CPU(call_single_data_t, write_back_call) = CSD_INIT(write_back, NULL);

int nvhv_cpus_write_back(unsigned int but)
{
	unsigned int here = get_cpu(), cpu;
	int asked = 0;

	atomic_set(&written_back, 0);
	for_each_online_cpu(cpu) {
		if (cpu == here || cpu == but)
			continue;
		if (smp_call_function_single_async(cpu, per_cpu_ptr(&write_back_call, cpu))) {
			/* It has not answered the last call. */
			asked = -EBUSY;
			break;
		}
		asked++;
	}
	wbinvd();
	put_cpu();
	return asked;
}

int nvhv_cpus_written_back(void) { return atomic_read(&written_back); }

void nvhv_wbinvd(void) { wbinvd(); }
void nvhv_touch_watchdogs(void) { touch_nmi_watchdog(); }
int nvhv_this_cpu(void) { return raw_smp_processor_id(); }
int nvhv_this_node(void) { return numa_node_id(); }

void nvhv_irq_enable(void) { local_irq_enable(); }

void nvhv_hurry(void)
{
	if (!is_idle_task(current))
		sched_set_fifo(current);
}

/* The CPU that was given up, or -1. One context gives up in the life of the kernel. */
static int given_up = -1;

void nvhv_cpu_give_up(void)
{
	unsigned long flags;
	int cpu;

	local_irq_save(flags);
	cpu = raw_smp_processor_id();
	if (cpu_active(cpu) && num_active_cpus() > 1) {
		given_up = cpu;
		/* As a CPU that is unplugged: no task is put there when it is woken, and none is fetched from there. */
		set_cpu_dying(cpu, true);
		set_cpu_active(cpu, false);
	}
	local_irq_restore(flags);
}

void nvhv_cpu_take_back(void)
{
	if (given_up < 0)
		return;
	set_cpu_active(given_up, true);
	set_cpu_dying(given_up, false);
	given_up = -1;
}

void nvhv_allow_elsewhere(struct task_struct *task)
{
	if (cpumask_intersects(&task->cpus_mask, cpu_active_mask))
		return;
	/* To do it as one should takes the lock of its CPU's run queue. Whoever wakes it looks at these. */
	cpumask_copy(&task->cpus_mask, cpu_active_mask);
	task->nr_cpus_allowed = cpumask_weight(cpu_active_mask);
}

void nvhv_never_wake_current(void)
{
	/* Who wakes a task that is about to sleep waits until it has left its CPU. One that is awake is let be. */
	WRITE_ONCE(current->__state, TASK_RUNNING);
}

bool nvhv_was_on(struct task_struct *task, unsigned int cpu) { return task_cpu(task) == cpu; }

void nvhv_panic_for_other(void)
{
	/* It began, but has not come to where the kernel panics: an NMI's panic is its CPU's own before that. */
	panic_reset();
	nvhv_panic_as_noted();
}
