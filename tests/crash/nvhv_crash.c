// SPDX-License-Identifier: GPL-2.0
/*
 * Loses the host's kernel in a chosen context: echo CAUSE [CPU [WHEN]] >/sys/module/nvhv_crash/parameters/now
 *
 * WHEN: it happens in a timer's interrupt on that CPU; after so many microseconds, whatever runs there then, or upon a task that
 * lets go of a lock (unlock), or upon a softirq (softirq).
 */
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/nmi.h>
#include <linux/panic.h>
#include <linux/preempt.h>
#include <linux/smp.h>
#include <linux/workqueue.h>
#include <trace/events/sched.h>

static void by_call(void) { panic("crash test: call"); }
static void by_bug(void) { BUG(); }
static void by_warning(void) { WARN(1, "crash test: warning"); }

static void by_null(void)
{
	int *nowhere = NULL;

	OPTIMIZER_HIDE_VAR(nowhere);
	*nowhere = 1;
}

static void by_irqs_off(void)
{
	local_irq_disable();
	panic("crash test: interrupts off");
}

static void by_lock(void)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	panic("crash test: spinlock held");
}

/* A CPU that lets nobody else run, until the watchdog complains: kernel.softlockup_panic. */
static void by_softlockup(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

static int on_cpu;
static atomic_t due;

/* The scheduler calls this with the lock of its runqueue held. */
static void switched(void *data, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int state)
{
	if (raw_smp_processor_id() == on_cpu && atomic_dec_and_test(&due))
		panic("crash test: runqueue locked");
}

static int registered;

static void find(struct tracepoint *tp, void *name)
{
	if (!strcmp(tp->name, name))
		registered = tracepoint_probe_register(tp, switched, NULL);
}

static const struct {
	const char *name;
	void (*happen)(void);
} causes[] = {
	{ "call", by_call }, { "bug", by_bug }, { "warning", by_warning }, { "null", by_null },
	{ "irqs-off", by_irqs_off }, { "lock", by_lock }, { "softlockup", by_softlockup },
};

static void (*happen)(void);
static struct hrtimer timer;

static enum hrtimer_restart fired(struct hrtimer *unused)
{
	happen();
	return HRTIMER_NORESTART;
}

static void start_timer(void *delay)
{
	hrtimer_start(&timer, us_to_ktime((unsigned long)delay), HRTIMER_MODE_REL_PINNED_HARD);
}

static long by_work(void *unused)
{
	happen();
	return 0;
}

/* mdelay() would disable preemption. */
static void spin_for_ms(u64 ms)
{
	u64 end = ktime_get_mono_fast_ns() + ms * NSEC_PER_MSEC;

	while (ktime_get_mono_fast_ns() < end)
		cpu_relax();
}

static long upon_unlock(void *unused)
{
	static DEFINE_SPINLOCK(lock);
	unsigned long flags;

	spin_lock_irqsave(&lock, flags);
	start_timer(0);
	spin_for_ms(20);
	spin_unlock_irqrestore(&lock, flags);
	return 0;
}

static struct timer_list soft;

static void soft_fired(struct timer_list *unused)
{
	start_timer(0);
	spin_for_ms(20);
}

static long upon_softirq(void *unused)
{
	mod_timer(&soft, jiffies);
	spin_for_ms(100);
	return 0;
}

static int now(const char *text, const struct kernel_param *unused)
{
	unsigned long delay = 0;
	char name[16], when[16] = "";
	int cpu = 0, given = sscanf(text, "%15s %d %15s", name, &cpu, when);
	bool is_delayed = !kstrtoul(when, 10, &delay);

	if (given < 1 || !cpu_online(cpu))
		return -EINVAL;
	if (!strcmp(name, "runqueue")) {
		on_cpu = cpu;
		atomic_set(&due, is_delayed ? delay : 1);
		for_each_kernel_tracepoint(find, "sched_switch");
		return registered;
	}
	for (int i = 0; i < ARRAY_SIZE(causes); i++) {
		if (strcmp(name, causes[i].name))
			continue;
		happen = causes[i].happen;
		if (!strcmp(when, "unlock"))
			return work_on_cpu(cpu, upon_unlock, NULL);
		if (!strcmp(when, "softirq"))
			return work_on_cpu(cpu, upon_softirq, NULL);
		if (is_delayed)
			return smp_call_function_single(cpu, start_timer, (void *)delay, true);
		if (given == 2)
			return work_on_cpu(cpu, by_work, NULL);
		happen();
		return 0;
	}
	return -EINVAL;
}

static const struct kernel_param_ops ops = { .set = now };
module_param_cb(now, &ops, NULL, 0200);

static int __init crash_init(void)
{
	hrtimer_setup(&timer, fired, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	timer_setup(&soft, soft_fired, TIMER_PINNED);
	return 0;
}

module_init(crash_init);
MODULE_DESCRIPTION("Loses the host's kernel in a chosen context");
MODULE_LICENSE("GPL");
