// SPDX-License-Identifier: GPL-2.0
/* Going on after an interrupt that never ends; see onward.h. */
#include <linux/context_tracking_state.h>
#include <linux/cpufeature.h>
#include <linux/cpumask.h>
#include <linux/kallsyms.h>
#include <linux/kvm_host.h>
#include <linux/objtool.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <asm/ptrace.h>

#include "cpus.h"
#include "onward.h"

/* The preemption count of what goes on, and whether it is an NMI that came upon it. */
static unsigned int count_onward;
static bool from_nmi;

bool nvhv_is_nmi(const char *entry) { return !strcmp(entry, "asm_exc_nmi") || !strcmp(entry, "end_repeat_nmi"); }

/* The function that an address is in, with its module behind it: "svm_vcpu_run [kvm_amd]". Until it is asked again. */
static const char *symbol_at(unsigned long ip)
{
	/* One context asks in the life of the kernel. */
	static char symbol[KSYM_SYMBOL_LEN];

	sprint_symbol_no_offset(symbol, ip);
	return symbol;
}

static bool is_in(unsigned long ip, const char *function)
{
	const char *symbol = symbol_at(ip);

	return strstarts(symbol, function) && (!symbol[strlen(function)] || symbol[strlen(function)] == ' ');
}

/* Where KVM has a vCPU's thread take what made the guest exit. It has disabled preemption there, once. */
static bool is_taken_for_guest(struct pt_regs *regs, u8 kind)
{
	struct kvm_vcpu *vcpu;

	if (!is_in(regs->ip, "kvm_arch_vcpu_ioctl_run") && !is_in(regs->ip, "svm_vcpu_run"))
		return false;
	/* Nobody but KVM wants to be told of preemption. */
	vcpu = hlist_entry_safe(current->preempt_notifiers.first, struct kvm_vcpu, preempt_notifier.link);
	return vcpu && vcpu->arch.handling_intr_from_guest == kind;
}

/* Whether the instruction there is decl or decq %gs:__preempt_count. */
static bool enables_preemption(unsigned long ip)
{
	return !memcmp((void *)ip, "\x65\xff\x0d", 3) || !memcmp((void *)ip, "\x65\x48\xff\x0d", 4);
}

/*
 * Where interrupts that had to wait come at last: a task that has the CPU again, or lets go of a lock, has enabled them and
 * enables preemption next, which it disabled once more than before.
 */
static bool has_let_go(struct pt_regs *regs)
{
	static const char *const functions[] = { "_raw_spin_unlock_irq", "_raw_read_unlock_irq", "_raw_write_unlock_irq" };
	const char *symbol = symbol_at(regs->ip);

	if (!(regs->flags & X86_EFLAGS_IF))
		return false;
	if (strstarts(symbol, "finish_task_switch"))
		return true;
	for (int i = 0; i < ARRAY_SIZE(functions); i++)
		if (strstarts(symbol, functions[i]))
			return enables_preemption(regs->ip);
	return false;
}

bool nvhv_is_interrupt(const char *entry)
{
	return strstarts(entry, "asm_sysvec_") || !strcmp(entry, "asm_common_interrupt") || nvhv_is_nmi(entry);
}

bool nvhv_onward_possible(const struct nvhv_upon *upon)
{
	unsigned int count = preempt_count() - upon->counted, own, softirqs = 0, known = 0;
	struct pt_regs *regs = upon->regs;
	const bool nmi = upon->by_nmi;

	/* With FRED an event also ends at a lower level of stacks. An idle CPU has nothing to be taken further. */
	if (cpu_feature_enabled(X86_FEATURE_FRED) || user_mode(regs) || is_idle_task(current) || rcu_preempt_depth())
		return false;
	/*
	 * Nobody keeps the count of what was interrupted: it is what is left of the present one without the
	 * interrupt's own. If more is left than it has, that may be a lock that the interrupt holds.
	 */
	own = nmi ? NMI_OFFSET + HARDIRQ_OFFSET : count & HARDIRQ_MASK ? HARDIRQ_OFFSET : SOFTIRQ_OFFSET;
	count_onward = count - own;
	from_nmi = nmi;
	/* Softirqs, or that there must be none, are no affair of an interrupt's. Upon one, an NMI steps aside. */
	if (own == HARDIRQ_OFFSET)
		softirqs = count & SOFTIRQ_MASK;
	/* A softirq at the end of another interrupt has the count of what that came upon, and its own. */
	if (softirqs & SOFTIRQ_OFFSET) {
		if (!upon->below || !(regs->flags & X86_EFLAGS_IF))
			return false;
		if (has_let_go(regs))
			known = PREEMPT_OFFSET;
		regs = upon->below;
	}
	if (is_taken_for_guest(regs, nmi ? KVM_HANDLING_NMI : KVM_HANDLING_IRQ) || (!nmi && has_let_go(regs)))
		known += PREEMPT_OFFSET;
	else if (!(regs->flags & X86_EFLAGS_IF))
		return false;
	return count_onward == softirqs + known;
}

/* Where the kernel is entered or left: what an NMI's own entry has put aside there is not put back by us. */
static bool is_entry(unsigned long ip)
{
	const char *symbol = symbol_at(ip);

	return strstarts(symbol, "asm_") || strstarts(symbol, "entry_") || strstarts(symbol, "error_") ||
	       strstarts(symbol, "paranoid_") || strstarts(symbol, "common_interrupt_return");
}

bool nvhv_onward_past_lock(struct pt_regs *regs, bool may_wait)
{
	/* Where RCU did not watch, it would have to be told that it need not any more. */
	if (cpu_feature_enabled(X86_FEATURE_FRED) || user_mode(regs) || __this_cpu_read(context_tracking.nmi_nesting) == 1)
		return false;
	if (is_entry(regs->ip))
		return false;
	from_nmi = true;
	/* The NMI holds nothing, so what it does not count itself is what it came upon. */
	count_onward = preempt_count() - NMI_OFFSET - HARDIRQ_OFFSET;
	/* With one CPU, or one that hangs, who waits for a lock waits for ever. */
	return may_wait || !is_in(regs->ip, "native_queued_spin_lock_slowpath");
}

void nvhv_go_onward(struct pt_regs *regs)
{
	/*
	 * What an entry has done beyond the counts is left undone: the interrupts' stack counts as used, so others stay on
	 * that of the task, and this CPU takes no further NMI. All of that is good enough for a CPU that is about to panic.
	 */
	local_irq_disable();
	/* As ct_nmi_exit() where RCU watched before: an idle CPU that comes to its end looks at it. */
	if (from_nmi)
		__this_cpu_sub(context_tracking.nmi_nesting, 2);
	nvhv_cpus_wake_here();
	preempt_count_set(count_onward);
	/* As the entry's own end does: the general registers in their order, without orig_ax, then the rest. */
	asm volatile("movq %0, %%rsp\n\t"
		     "popq %%r15\n\t"
		     "popq %%r14\n\t"
		     "popq %%r13\n\t"
		     "popq %%r12\n\t"
		     "popq %%rbp\n\t"
		     "popq %%rbx\n\t"
		     "popq %%r11\n\t"
		     "popq %%r10\n\t"
		     "popq %%r9\n\t"
		     "popq %%r8\n\t"
		     "popq %%rax\n\t"
		     "popq %%rcx\n\t"
		     "popq %%rdx\n\t"
		     "popq %%rsi\n\t"
		     "popq %%rdi\n\t"
		     "addq $8, %%rsp\n\t"
		     "iretq" : : "r" (regs) : "memory");
	unreachable();
}
STACK_FRAME_NON_STANDARD(nvhv_go_onward);
