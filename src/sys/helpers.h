/* SPDX-License-Identifier: GPL-2.0 */
/* Shims over macros and inline functions of the kernel: one line each, no logic of ours. */
#ifndef NVHV_HELPERS_H
#define NVHV_HELPERS_H

#include <linux/eventfd.h>
#include <linux/fprobe.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/huge_mm.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/task_work.h>
#include <linux/wait.h>

/* Constants that bindgen cannot evaluate. */
enum {
	NVHV_PMD_ORDER = PMD_ORDER,
	NVHV_POLLIN = 0x0001, /* EPOLLIN, linux/eventpoll.h */
	NVHV_POLLHUP = 0x0010, /* EPOLLHUP */
	NVHV_RESTARTNOINTR = 513, /* ERESTARTNOINTR, linux/errno.h */
	NVHV_RESTARTNOHAND = 514, /* ERESTARTNOHAND */
};
extern const vm_flags_t NVHV_RAM_VMA_FLAGS;

/* linux/err.h */
bool nvhv_is_err(const void *ptr);

/* linux/fs.h, linux/file.h */
void nvhv_mapping_lock_shared(struct file *file);
void nvhv_mapping_unlock_shared(struct file *file);
void nvhv_mapping_lock(struct file *file);
void nvhv_mapping_unlock(struct file *file);
void nvhv_unmap_all(struct file *file);
void nvhv_unmap_page(struct file *file, loff_t offset);
void nvhv_close_fd(unsigned int fd);
struct module *nvhv_file_owner(struct file *file);
bool nvhv_file_named(struct file *file, const char *prefix);
struct file *nvhv_get_file(struct file *file);
bool nvhv_same_file(struct file *one, struct file *other);
dev_t nvhv_file_device(struct file *file);
u64 nvhv_file_inode(struct file *file);
char *nvhv_file_path(struct file *file, char *buf, int len);
/* Open for reading and writing, and what is written waits in the page cache to be written back. */
bool nvhv_file_is_cached(struct file *file);

/* linux/fdtable.h: all files that current has open, under a spinlock; ends if look returns not 0. */
void nvhv_for_each_file(int (*look)(const void *data, struct file *file, unsigned int fd),
			const void *data);

/* linux/eventfd.h, linux/poll.h, linux/wait.h */
void nvhv_eventfd_signal(struct eventfd_ctx *ctx);
struct wait_queue_head *nvhv_poll_head(struct file *file);
unsigned long nvhv_wait_lock(struct wait_queue_head *head);
void nvhv_wait_unlock(struct wait_queue_head *head, unsigned long flags);
void nvhv_wait_first(struct wait_queue_head *head, struct wait_queue_entry *entry,
		     wait_queue_func_t func);
void nvhv_wait_leave(struct wait_queue_head *head, struct wait_queue_entry *entry);

/* linux/hrtimer.h */
void nvhv_timer_setup(struct hrtimer *timer, enum hrtimer_restart (*func)(struct hrtimer *));
void nvhv_timer_start(struct hrtimer *timer, u64 ns);

/* linux/ratelimit.h */
bool nvhv_may_log(void);

/* linux/module.h */
void nvhv_module_get(struct module *module);

/* linux/ftrace_regs.h */
unsigned long nvhv_regs_argument(struct ftrace_regs *regs, unsigned int nr);
unsigned long nvhv_regs_return(struct ftrace_regs *regs);
void nvhv_regs_redirect(struct ftrace_regs *regs, unsigned long ip);

/* linux/sched.h, linux/sched/signal.h */
struct task_struct *nvhv_current(void);
struct mm_struct *nvhv_current_mm(void);
bool nvhv_current_exiting(void);
bool nvhv_current_killed(void);
int nvhv_current_group_exit_code(void);
bool nvhv_current_group_dead(void);
struct pid *nvhv_current_tgid(void);
struct pid *nvhv_get_pid(struct pid *pid);
struct pid *nvhv_task_tgid(struct task_struct *task);
bool nvhv_descends_from(struct pid *tgid);
bool nvhv_pid_alive(struct pid *pid);
bool nvhv_pid_exiting(struct pid *pid);
int nvhv_pid_nr(struct pid *pid);
unsigned int nvhv_current_uid(void);
bool nvhv_capable_admin(void);
struct task_struct *nvhv_kthread_create(int (*threadfn)(void *), void *data, const char *name);
struct task_struct *nvhv_get_task(struct task_struct *task);
void nvhv_put_task(struct task_struct *task);
void nvhv_init_task_work(struct callback_head *work, task_work_func_t func);

void nvhv_cond_resched(void);
void nvhv_msleep(unsigned int ms);
void nvhv_usleep(unsigned long us);
/* linux/sched/mm.h: current takes memory from the reserves, and waits for none to be freed. */
void nvhv_memalloc(void);

/* linux/mm.h */
struct page *nvhv_pfn_to_page(unsigned long pfn);
struct folio *nvhv_page_folio(struct page *page);
int nvhv_folio_order(struct folio *folio);
int nvhv_folio_ref_count(struct folio *folio);
void *nvhv_page_address(struct page *page);
bool nvhv_page_is_pinned(struct page *page);
bool nvhv_memory_is_zero(const void *start, size_t bytes);
void nvhv_put_page(struct page *page);
void *nvhv_phys_to_virt(phys_addr_t phys);
void nvhv_vma_setup(struct vm_area_struct *vma, const struct vm_operations_struct *ops);
struct file *nvhv_vma_file(struct vm_area_struct *vma);
/* What backs addr: see enum nvhv_backing. *end is where that VMA ends. */
enum nvhv_backing {
	NVHV_BACKING_NONE,	/* no mapping, or one that the VMM cannot write */
	NVHV_BACKING_AWAITED,	/* a user program provides pages as they are accessed */
	NVHV_BACKING_ANON,	/* private anonymous memory */
	NVHV_BACKING_SHMEM,	/* tmpfs or memfd pages, mapped by this mm alone */
	NVHV_BACKING_SHARED,	/* tmpfs or memfd pages, mapped elsewhere too */
	NVHV_BACKING_FILE,	/* a regular file, shared with it */
	NVHV_BACKING_OTHER,	/* devices, hugetlbfs, private mappings of files */
};
enum nvhv_backing nvhv_backing(unsigned long addr, unsigned long *end);
/* Whether file is mapped anywhere in addr..end. */
bool nvhv_maps_file(unsigned long addr, unsigned long end, struct file *file);
unsigned long nvhv_next_populated(unsigned long addr, unsigned long end);
bool nvhv_is_present(unsigned long addr);
/* Makes durable what files have of the memory that shows them; as msync(2) of a mapping that need not be one's own. */
int nvhv_sync_mapped_files(unsigned long addr, unsigned long len);
unsigned long nvhv_find_mapping(struct file *file);

/* linux/string.h: bytes is a multiple of 8. By words, which takes an emulator an eighth of the steps. */
void nvhv_zero(void *start, size_t bytes);

/* linux/memremap.h */
struct dev_pagemap *nvhv_get_devmap(unsigned long pfn);
void nvhv_put_devmap(struct dev_pagemap *pgmap);

/* linux/timekeeping.h */
s64 nvhv_real_ns(void);

/* asm/barrier.h */
void nvhv_wmb(void);

/* linux/tracepoint.h */
bool nvhv_tracepoint_named(struct tracepoint *tp, const char *name);
void nvhv_tracepoint_sync(void);

/* linux/uts.h */
const char *nvhv_kernel_release(void);

#endif
