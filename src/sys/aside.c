// SPDX-License-Identifier: GPL-2.0
/* Stepping aside; see aside.h. */
#include <linux/cpufeature.h>
#include <linux/ftrace.h>
#include <linux/hrtimer.h>
#include <linux/kallsyms.h>
#include <linux/kvm_host.h>
#include <linux/panic.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/smp.h>
#include <linux/stacktrace.h>
#include <linux/string.h>
#include <asm/fpu/xcr.h>
#include <asm/irq_stack.h>
#include <asm/kvm_para.h>
#include <asm/msr.h>
#include <asm/stacktrace.h>
#include <asm/unwind.h>

#include "aside.h"
#include "compat/compat.h"
#include "onward.h"

/* What KVM does for the LAPIC after an exit, before it handles that: arch/x86/kvm/lapic.c */
#define KVM_APIC_CHECK_VAPIC	0
#define KVM_APIC_PV_EOI_PENDING	1

/* Who holds a lock of a run queue, of a task's priority, of timers or of the time has one of these on its stack. */
static const char *const schedulers[] = {
	"__schedule", "sched_", "__sched_", "try_to_wake_up", "ttwu_", "wake_up_new_task", "set_cpus_allowed",
	"__set_cpus_allowed", "set_user_nice", "yield_to", "schedule_tail", "task_sched_runtime", "dl_task_timer",
	"inactive_task_timer", "hrtick", "rto_push_irq_work", "migration_cpu_stop", "push_cpu_stop",
	"__balance_push_cpu_stop", "active_load_balance_cpu_stop", "__cfsb_csd_unthrottle",
	"rt_mutex_", "attach_to_pi_owner", "pi_state_update_owner",
	"hrtimer_start", "hrtimer_cancel", "hrtimer_try_to_cancel",
	"mod_timer", "__mod_timer", "add_timer", "timer_delete", "__timer_delete", "__try_to_del_timer",
	"__get_next_timer", "fetch_next_timer_interrupt", "tmigr_",
	"timekeeping_", "__timekeeping_", "update_wall_time", "tick_do_update_jiffies64", "do_settimeofday64",
	"do_adjtimex",
};

static bool is_scheduler(const char *symbol)
{
	for (int i = 0; i < ARRAY_SIZE(schedulers); i++)
		if (strstarts(symbol, schedulers[i]))
			return true;
	return false;
}

/*
 * A warning disables preemption twice, to be told of while RCU may not watch and to be printed at once: kernel/panic.c,
 * __warn(), in 7.2 and 7.3. Where a kernel does so more often, a warning is taken for somebody who holds a lock.
 */
#define WARNING_COUNTS	(2 * PREEMPT_OFFSET)

static struct hrtimer deadline;

/* The timers of this CPU, found from those of any other. */
static struct hrtimer_cpu_base *timers_here(void)
{
	struct hrtimer_cpu_base *any = deadline.base->cpu_base;

	return (void *)any - per_cpu_offset(any->cpu) + per_cpu_offset(raw_smp_processor_id());
}

/* Whether the lock of this CPU's timers stays locked: by what the context came upon. Others hold it for moments. */
static bool holds_timers(void)
{
	struct hrtimer_cpu_base *base = timers_here();

	for (int i = 0; i < 10000; i++) {
		if (!raw_spin_is_locked(&base->lock))
			return false;
		cpu_relax();
	}
	return true;
}

/* Whether this CPU hangs with interrupts disabled: what its timer was to do is long overdue. */
static bool is_stuck(void)
{
	s64 long_ago = ktime_get_mono_fast_ns() - 200 * NSEC_PER_MSEC;

	return READ_ONCE(timers_here()->expires_next) < long_ago;
}

/* The stack for interrupts, if the context is on it or came upon it. */
static void *irq_stack, *irq_stack_copy;
static size_t irq_stack_size;

void nvhv_look_down(struct nvhv_footing *footing, struct ftrace_regs *entered)
{
	/* One context looks down in the life of the kernel. */
	static char symbol[KSYM_SYMBOL_LEN];
	struct unwind_state state;
	/* The locks that matter are held with interrupts disabled: not by what an interrupt came upon, nor below. */
	bool may_hold = true;
	struct pt_regs caller = {}, *first = NULL, *unexplained = NULL;
	bool innermost = !entered, is_handled = false, is_unexplained = false, may_block;
	struct nvhv_upon upon = {};

	footing->onward = NULL;
	if (entered) {
		/* The unwinder does not get beyond the entry of every function. */
		unsigned long *sp = (unsigned long *)ftrace_regs_get_stack_pointer(entered);

		caller.ip = *sp;
		caller.sp = (unsigned long)(sp + 1);
		caller.bp = ftrace_regs_get_frame_pointer(entered);
		first = &caller;
	}
	footing->solid = !preempt_count() && !rcu_preempt_depth() && !is_idle_task(current);
	footing->apart = true;
	footing->untrusted = false;
	for (unwind_start(&state, current, first, NULL); !unwind_done(&state); unwind_next_frame(&state)) {
		struct pt_regs *regs = unwind_get_entry_regs(&state, NULL);

		if (state.stack_info.type == STACK_TYPE_IRQ) {
			irq_stack = state.stack_info.begin;
			irq_stack_size = (void *)state.stack_info.end - irq_stack;
		}
		/* Those of an exception lead to the instruction that caused it. */
		if (regs && nvhv_is_interrupt(symbol)) {
			if (innermost) {
				innermost = false;
				upon.regs = regs;
				upon.by_nmi = nvhv_is_nmi(symbol);
				if (is_unexplained)
					unexplained = regs;
			} else if (upon.regs && !upon.below) {
				upon.below = regs;
			}
		}
		if (regs && user_mode(regs))
			break;
		if (regs && regs->flags & X86_EFLAGS_IF)
			may_hold = false;
		sprint_symbol_no_offset(symbol, unwind_get_return_address(&state));
		if (may_hold && is_scheduler(symbol))
			footing->apart = false;
		/* An NMI that nobody explains holds no lock when it panics; a handler that does so is an RCU reader. */
		if (strstarts(symbol, "nmi_handle"))
			is_handled = true;
		if (!strcmp(symbol, "unknown_nmi_error"))
			is_unexplained = !is_handled;
		if (innermost && strstarts(symbol, "__warn"))
			upon.counted = WARNING_COUNTS;
		if (!strcmp(symbol, "mce_panic"))
			footing->untrusted = true;
	}
	if (upon.regs && nvhv_onward_possible(&upon))
		footing->onward = upon.regs;
	/* With FRED others would run at the NMI's level of stacks. */
	if (cpu_feature_enabled(X86_FEATURE_FRED) && in_nmi())
		footing->apart = false;
	if (unwind_error(&state) || holds_timers())
		footing->apart = false;
	/*
	 * Only KVM wants to be told of preemption: in KVM_RUN, which must get on, or its vCPU is torn. And with interrupts
	 * disabled the NMI may have come upon the holder of any lock, which other CPUs wait for in the same way.
	 */
	may_block = unexplained && num_online_cpus() > 1 && !(unexplained->flags & X86_EFLAGS_IF) && !is_stuck();
	if (unexplained && (!footing->apart || may_block ||
			    (!footing->onward && !hlist_empty(&current->preempt_notifiers))))
		footing->onward = nvhv_onward_past_lock(unexplained, may_block) ? unexplained : NULL;
	else if (!footing->apart)
		footing->onward = NULL;
}

static u64 host_xcr0, host_xss;

static void note_extended_state(void)
{
	if (boot_cpu_has(X86_FEATURE_OSXSAVE))
		host_xcr0 = xgetbv(XCR_XFEATURE_ENABLED_MASK);
	if (boot_cpu_has(X86_FEATURE_XSAVES))
		rdmsrq(MSR_IA32_XSS, host_xss);
}

/* Where KVM enters and leaves a guest, the guest's is loaded, with which nobody else's registers can be restored. */
static void restore_extended_state(void)
{
	if (boot_cpu_has(X86_FEATURE_OSXSAVE) && xgetbv(XCR_XFEATURE_ENABLED_MASK) != host_xcr0)
		xsetbv(XCR_XFEATURE_ENABLED_MASK, host_xcr0);
	if (boot_cpu_has(X86_FEATURE_XSAVES))
		wrmsrq(MSR_IA32_XSS, host_xss);
}

static char stack[THREAD_SIZE] __aligned(16);
static char copy[IRQ_STACK_SIZE];

/* Has KVM part with the vCPU whose KVM_RUN the current task is in, if it is in one, as when it is switched from. */
static void part_with_vcpu(void)
{
	struct preempt_notifier *notifier =
		hlist_entry_safe(current->preempt_notifiers.first, struct preempt_notifier, link);

	if (!notifier)
		return;
	/* It does not count as preempted, which KVM would tell the guest. */
	container_of(notifier, struct kvm_vcpu, preempt_notifier)->wants_to_run = false;
	notifier->ops->sched_out(notifier, current);
	/* Once: whoever takes the vCPU has it for itself, though this context is switched to again and again. */
	hlist_del_init(&notifier->link);
}

static void on_stack_apart(void (*wait)(void))
{
	unsigned long count = preempt_count(), flags;
	int readers = current->rcu_read_lock_nesting;

	local_irq_save(flags);
	restore_extended_state();
	/* A softirq that somebody else starts meanwhile begins at the top of the interrupts' stack. */
	if (irq_stack && irq_stack_size <= sizeof(copy))
		memcpy(irq_stack_copy = copy, irq_stack, irq_stack_size);
	current->plug = NULL;
	current->flags &= ~PF_BLOCK_TS;
	current->rcu_read_lock_nesting = 0;
	preempt_count_set(0);
	part_with_vcpu();
	if (!is_idle_task(current))
		migrate_disable();
	local_irq_enable();

	wait();

	local_irq_disable();
	__set_current_state(TASK_RUNNING);
	preempt_count_set(count);
	current->rcu_read_lock_nesting = readers;
	if (irq_stack_copy)
		memcpy(irq_stack, irq_stack_copy, irq_stack_size);
	local_irq_restore(flags);
}

void nvhv_step_aside(void (*wait)(void))
{
	call_on_stack(stack + sizeof(stack) - 8, on_stack_apart, ASM_CALL_ARG1, , [arg1] "r" (wait));
}

void nvhv_aside_pause(void)
{
	if (is_idle_task(current)) {
		cpu_relax();
		schedule();
	} else {
		ktime_t moment = ms_to_ktime(1);

		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_hrtimeout(&moment, HRTIMER_MODE_REL);
	}
}

static char text[256] = "sealing VMs took too long";
static bool (*too_late)(void);

static unsigned long trace[64];
static unsigned int traced;

void nvhv_panic_as_noted(void)
{
	pr_emerg("The kernel panicked at\n");
	stack_trace_print(trace, traced, 1);
	panic("%s", text);
}

static enum hrtimer_restart expired(struct hrtimer *unused)
{
	if (too_late())
		nvhv_panic_as_noted();
	return HRTIMER_NORESTART;
}

static struct hrtimer nudge;

static enum hrtimer_restart nudged(struct hrtimer *unused) { return HRTIMER_NORESTART; }

void nvhv_aside_setup(bool (*late)(void))
{
	note_extended_state();
	too_late = late;
	hrtimer_setup(&deadline, expired, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	hrtimer_setup(&nudge, nudged, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_PINNED_HARD);
}

void nvhv_deadline_start(u64 ns)
{
	struct hrtimer_cpu_base *base = timers_here();

	hrtimer_start(&deadline, ns_to_ktime(ns), HRTIMER_MODE_REL_PINNED_HARD);
	if (!base->deferred_rearm)
		return;
	/*
	 * Within the timer interrupt, whose end would have programmed the device, and will not come. A timer that comes
	 * before all others has it programmed, and the next interrupt sees to the rest.
	 */
	base->deferred_rearm = false;
	/* Nor does it matter that the last interrupt took too long. */
	base->hang_detected = false;
	base->expires_next = KTIME_MAX;
	hrtimer_start(&nudge, 1, HRTIMER_MODE_ABS_PINNED_HARD);
}

void nvhv_deadline_cancel(void) { hrtimer_try_to_cancel(&deadline); }

void nvhv_panic_note(const char *format, nvhv_va_list *arguments)
{
	static atomic_t noted;
	va_list again;

	/* Another CPU that panics later is not what is told of. */
	if (atomic_xchg(&noted, 1))
		return;
	va_copy(again, *arguments);
	vscnprintf(text, sizeof(text), format, again);
	va_end(again);
	traced = stack_trace_save(trace, ARRAY_SIZE(trace), 1);
}

bool nvhv_task_on_cpu(struct task_struct *task) { return READ_ONCE(task->on_cpu); }

bool nvhv_vcpu_is_whole(struct file *file)
{
	struct kvm_vcpu *vcpu = file->private_data;

	/*
	 * KVM takes the interrupt that made the guest exit: nothing is half done, the guest's FPU state is loaded, mutex
	 * and preemption notifier are held. The first of both flags alone stays set until the next KVM_RUN enters the
	 * guest, through all that happens before.
	 */
	return NVHV_KVM_HAS_CR3_EARLY && READ_ONCE(vcpu->arch.at_instruction_boundary) &&
	       READ_ONCE(vcpu->arch.handling_intr_from_guest) == KVM_HANDLING_IRQ &&
	       !test_bit(KVM_APIC_CHECK_VAPIC, &vcpu->arch.apic_attention);
}

bool nvhv_vcpu_eoi_allowed(struct file *file, u64 *gpa)
{
	struct kvm_vcpu *vcpu = file->private_data;

	*gpa = vcpu->arch.pv_eoi.msr_val & ~(u64)KVM_MSR_ENABLED;
	return test_bit(KVM_APIC_PV_EOI_PENDING, &vcpu->arch.apic_attention);
}

bool nvhv_vcpu_take(struct file *file)
{
	struct kvm_vcpu *vcpu = file->private_data;

	/* Without debugging the kernel does not ask whose a mutex is. */
	if (IS_ENABLED(CONFIG_DEBUG_MUTEXES) || !nvhv_vcpu_is_whole(file))
		return false;
	/* As the task would have done before it returned from KVM_RUN. The rest was done when it stepped aside. */
	mutex_unlock(&vcpu->mutex);
	return true;
}
