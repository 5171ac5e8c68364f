// SPDX-License-Identifier: GPL-2.0
/* Shims over macros and inline functions of the kernel; see helpers.h. */
#include <linux/backing-dev.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/io.h>
#include <linux/timekeeping.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagewalk.h>
#include <linux/poll.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/shmem_fs.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>
#include <linux/utsname.h>

#include "helpers.h"

bool nvhv_is_err(const void *ptr) { return IS_ERR_OR_NULL(ptr); }

void nvhv_mapping_lock_shared(struct file *file) { filemap_invalidate_lock_shared(file->f_mapping); }
void nvhv_mapping_unlock_shared(struct file *file) { filemap_invalidate_unlock_shared(file->f_mapping); }
void nvhv_mapping_lock(struct file *file) { filemap_invalidate_lock(file->f_mapping); }
void nvhv_mapping_unlock(struct file *file) { filemap_invalidate_unlock(file->f_mapping); }
void nvhv_unmap_all(struct file *file) { unmap_mapping_range(file->f_mapping, 0, 0, 1); }


void nvhv_unmap_page(struct file *file, loff_t offset)
{
	unmap_mapping_range(file->f_mapping, offset, PAGE_SIZE, 1);
}

void nvhv_close_fd(unsigned int fd) { close_fd(fd); }

void nvhv_eventfd_signal(struct eventfd_ctx *ctx) { eventfd_signal(ctx); }

struct nvhv_poll {
	poll_table pt;
	struct wait_queue_head *head;
};

static void nvhv_note_head(struct file *file, wait_queue_head_t *head, poll_table *pt)
{
	container_of(pt, struct nvhv_poll, pt)->head = head;
}

/* The wait queue that a poll of file waits on. */
struct wait_queue_head *nvhv_poll_head(struct file *file)
{
	struct nvhv_poll poll = { .head = NULL };

	init_poll_funcptr(&poll.pt, nvhv_note_head);
	vfs_poll(file, &poll.pt);
	return poll.head;
}

unsigned long nvhv_wait_lock(struct wait_queue_head *head)
{
	unsigned long flags;

	spin_lock_irqsave(&head->lock, flags);
	return flags;
}

void nvhv_wait_unlock(struct wait_queue_head *head, unsigned long flags)
{
	spin_unlock_irqrestore(&head->lock, flags);
}

/* Before all entries that are there, also those with priority; the lock is held. */
void nvhv_wait_first(struct wait_queue_head *head, struct wait_queue_entry *entry,
		     wait_queue_func_t func)
{
	init_waitqueue_func_entry(entry, func);
	entry->flags |= WQ_FLAG_PRIORITY;
	list_add(&entry->entry, &head->head);
}

void nvhv_wait_leave(struct wait_queue_head *head, struct wait_queue_entry *entry)
{
	__remove_wait_queue(head, entry);
}

void nvhv_timer_setup(struct hrtimer *timer, enum hrtimer_restart (*func)(struct hrtimer *))
{
	hrtimer_setup(timer, func, CLOCK_MONOTONIC, HRTIMER_MODE_REL_SOFT);
}

void nvhv_timer_start(struct hrtimer *timer, u64 ns)
{
	hrtimer_start(timer, ns_to_ktime(ns), HRTIMER_MODE_REL_SOFT);
}

bool nvhv_may_log(void)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&limit);
}

struct module *nvhv_file_owner(struct file *file) { return file->f_op->owner; }

bool nvhv_file_named(struct file *file, const char *prefix)
{
	const struct qstr *name = &file->f_path.dentry->d_name;

	return !strncmp(name->name, prefix, strlen(prefix));
}

struct file *nvhv_get_file(struct file *file) { return get_file(file); }

bool nvhv_same_file(struct file *one, struct file *other) { return file_inode(one) == file_inode(other); }

dev_t nvhv_file_device(struct file *file)
{
	struct inode *inode = file_inode(file);

	return S_ISBLK(inode->i_mode) ? inode->i_rdev : inode->i_sb->s_dev;
}

u64 nvhv_file_inode(struct file *file)
{
	struct inode *inode = file_inode(file);

	return S_ISBLK(inode->i_mode) ? 0 : inode->i_ino;
}

char *nvhv_file_path(struct file *file, char *buf, int len) { return d_path(&file->f_path, buf, len); }

bool nvhv_file_is_cached(struct file *file)
{
	const fmode_t both = FMODE_READ | FMODE_WRITE;
	umode_t mode = file_inode(file)->i_mode;

	return (S_ISREG(mode) || S_ISBLK(mode)) && (file->f_mode & both) == both &&
		!(file->f_flags & (O_DIRECT | O_DSYNC)) && !IS_SYNC(file->f_mapping->host) &&
		!IS_DAX(file->f_mapping->host) && mapping_can_writeback(file->f_mapping) &&
		/* What is mapped is memory of the guest, which a seal makes durable. */
		!mapping_writably_mapped(file->f_mapping);
}

void nvhv_for_each_file(int (*look)(const void *data, struct file *file, unsigned int fd),
			const void *data)
{
	iterate_fd(current->files, 0, look, data);
}

void nvhv_module_get(struct module *module) { __module_get(module); }

unsigned long nvhv_regs_argument(struct ftrace_regs *regs, unsigned int nr)
{
	return ftrace_regs_get_argument(regs, nr);
}

unsigned long nvhv_regs_return(struct ftrace_regs *regs)
{
	return ftrace_regs_get_return_value(regs);
}

/* Not traced: it is called while a function is being traced. */
notrace void nvhv_regs_redirect(struct ftrace_regs *regs, unsigned long ip)
{
	ftrace_regs_set_instruction_pointer(regs, ip);
}

struct task_struct *nvhv_current(void) { return current; }
struct task_struct *nvhv_get_task(struct task_struct *task) { return get_task_struct(task); }
void nvhv_put_task(struct task_struct *task) { put_task_struct(task); }
struct mm_struct *nvhv_current_mm(void) { return current->mm; }
bool nvhv_current_exiting(void) { return current->flags & PF_EXITING; }
bool nvhv_current_killed(void) { return fatal_signal_pending(current); }
int nvhv_current_group_exit_code(void) { return current->signal->group_exit_code; }

/*
 * Threads of the kernel that belong to the group (KVM's own worker among them) may go later than
 * the last one that has files: the exit of the group counts, not that all have gone.
 */
bool nvhv_current_group_dead(void)
{
	struct signal_struct *signal = current->signal;

	return (READ_ONCE(signal->flags) & SIGNAL_GROUP_EXIT) || !atomic_read(&signal->live);
}

struct pid *nvhv_current_tgid(void) { return task_tgid(current); }
struct pid *nvhv_get_pid(struct pid *pid) { return get_pid(pid); }
struct pid *nvhv_task_tgid(struct task_struct *task) { return task_tgid(task); }

bool nvhv_descends_from(struct pid *tgid)
{
	struct task_struct *task;
	bool found = false;

	rcu_read_lock();
	for (task = current; task && task->pid; task = rcu_dereference(task->real_parent)) {
		found = task_tgid(task) == tgid;
		if (found)
			break;
	}
	rcu_read_unlock();
	return found;
}

bool nvhv_pid_alive(struct pid *pid)
{
	bool alive;

	rcu_read_lock();
	alive = pid_task(pid, PIDTYPE_TGID) != NULL;
	rcu_read_unlock();
	return alive;
}

/* Whether the process is on its way out, or gone. */
bool nvhv_pid_exiting(struct pid *pid)
{
	struct task_struct *task;
	bool exiting;

	rcu_read_lock();
	task = pid_task(pid, PIDTYPE_TGID);
	exiting = !task || (READ_ONCE(task->signal->flags) & SIGNAL_GROUP_EXIT);
	rcu_read_unlock();
	return exiting;
}

int nvhv_pid_nr(struct pid *pid) { return pid_nr(pid); }
unsigned int nvhv_current_uid(void) { return from_kuid(&init_user_ns, current_uid()); }
bool nvhv_capable_admin(void) { return capable(CAP_SYS_ADMIN); }

struct task_struct *nvhv_kthread_create(int (*threadfn)(void *), void *data, const char *name)
{
	return kthread_create(threadfn, data, "nvhv/%s", name);
}

void nvhv_init_task_work(struct callback_head *work, task_work_func_t func)
{
	init_task_work(work, func);
}


const vm_flags_t NVHV_RAM_VMA_FLAGS = VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY | VM_HUGEPAGE;

void nvhv_zero(void *start, size_t bytes) { memset64(start, 0, bytes / 8); }

struct page *nvhv_pfn_to_page(unsigned long pfn) { return pfn_to_page(pfn); }
struct folio *nvhv_page_folio(struct page *page) { return page_folio(page); }
int nvhv_folio_order(struct folio *folio) { return folio_order(folio); }
int nvhv_folio_ref_count(struct folio *folio) { return folio_ref_count(folio); }
void *nvhv_page_address(struct page *page) { return page_address(page); }
bool nvhv_page_is_pinned(struct page *page) { return folio_maybe_dma_pinned(page_folio(page)); }
bool nvhv_memory_is_zero(const void *start, size_t bytes) { return !memchr_inv(start, 0, bytes); }
void nvhv_put_page(struct page *page) { put_page(page); }
void *nvhv_phys_to_virt(phys_addr_t phys) { return phys_to_virt(phys); }

void nvhv_vma_setup(struct vm_area_struct *vma, const struct vm_operations_struct *ops)
{
	vm_flags_set(vma, NVHV_RAM_VMA_FLAGS);
	vma->vm_ops = ops;
}

struct file *nvhv_vma_file(struct vm_area_struct *vma) { return vma->vm_file; }

static bool nvhv_mapped_elsewhere(struct vm_area_struct *vma)
{
	struct address_space *mapping = vma->vm_file->f_mapping;
	struct rb_node *node;
	bool elsewhere = false;

	i_mmap_lock_read(mapping);
	for (node = rb_first_cached(&mapping->i_mmap); node; node = rb_next(node))
		elsewhere |= rb_entry(node, struct vm_area_struct, shared.rb)->vm_mm != vma->vm_mm;
	i_mmap_unlock_read(mapping);
	return elsewhere;
}

bool nvhv_maps_file(unsigned long addr, unsigned long end, struct file *file)
{
	VMA_ITERATOR(vmi, current->mm, addr);
	struct vm_area_struct *vma;
	bool maps = false;

	mmap_read_lock(current->mm);
	for_each_vma_range(vmi, vma, end)
		maps |= vma->vm_file == file;
	mmap_read_unlock(current->mm);
	return maps;
}

enum nvhv_backing nvhv_backing(unsigned long addr, unsigned long *end)
{
	enum nvhv_backing backing = NVHV_BACKING_NONE;
	struct vm_area_struct *vma;

	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	if (vma)
		*end = vma->vm_end;
	if (!vma || !(vma->vm_flags & VM_WRITE))
		backing = NVHV_BACKING_NONE;
	else if (userfaultfd_armed(vma))
		backing = NVHV_BACKING_AWAITED;
	else if (vma_is_anonymous(vma) && !(vma->vm_flags & (VM_IO | VM_PFNMAP | VM_SHARED)))
		backing = NVHV_BACKING_ANON;
	else if (vma->vm_file && shmem_mapping(vma->vm_file->f_mapping))
		backing = !(vma->vm_flags & VM_SHARED) ? NVHV_BACKING_OTHER :
			nvhv_mapped_elsewhere(vma) ? NVHV_BACKING_SHARED : NVHV_BACKING_SHMEM;
	else if (vma->vm_file && S_ISREG(file_inode(vma->vm_file)->i_mode) &&
		 (vma->vm_flags & VM_SHARED) &&
		 !(vma->vm_flags & (VM_IO | VM_PFNMAP | VM_HUGETLB)))
		backing = NVHV_BACKING_FILE;
	else
		backing = NVHV_BACKING_OTHER;
	mmap_read_unlock(current->mm);
	return backing;
}

int nvhv_sync_mapped_files(unsigned long addr, unsigned long len)
{
	unsigned long end = addr + len;

	while (addr < end) {
		struct vm_area_struct *vma;
		struct file *file = NULL;
		unsigned long next;
		loff_t from;
		int ret;

		mmap_read_lock(current->mm);
		vma = vma_lookup(current->mm, addr);
		if (vma && vma->vm_file && (vma->vm_flags & VM_SHARED)) {
			file = get_file(vma->vm_file);
			from = ((loff_t)vma->vm_pgoff << PAGE_SHIFT) + (addr - vma->vm_start);
			next = min(vma->vm_end, end);
		}
		mmap_read_unlock(current->mm);
		if (!file)
			return -EFAULT;
		ret = vfs_fsync_range(file, from, from + (next - addr) - 1, 1);
		fput(file);
		if (ret)
			return ret;
		addr = next;
	}
	return 0;
}

bool nvhv_is_present(unsigned long addr)
{
	struct page *page;

	if (get_user_pages_fast_only(addr, 1, 0, &page) != 1)
		return false;
	put_page(page);
	return true;
}

/*
 * The first address from addr on, inside the VMA that is there, whose PMD entry is not empty, or
 * the end of that VMA or end. An empty entry has neither pages nor swap entries below it. The page
 * tables below a VMA that is found under the lock stay while the lock is held.
 */
unsigned long nvhv_next_populated(unsigned long addr, unsigned long end)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = vma_lookup(mm, addr);
	end = vma ? min(end, vma->vm_end) : addr;
	while (addr < end) {
		pgd_t *pgd = pgd_offset(mm, addr);
		p4d_t *p4d;
		pud_t *pud;
		pmd_t *pmd;

		if (pgd_none(READ_ONCE(*pgd))) {
			addr = pgd_addr_end(addr, end);
			continue;
		}
		p4d = p4d_offset(pgd, addr);
		if (p4d_none(READ_ONCE(*p4d))) {
			addr = p4d_addr_end(addr, end);
			continue;
		}
		pud = pud_offset(p4d, addr);
		if (pud_none(READ_ONCE(*pud))) {
			addr = pud_addr_end(addr, end);
			continue;
		}
		if (pud_leaf(READ_ONCE(*pud)))
			break;
		pmd = pmd_offset(pud, addr);
		if (!pmd_none(READ_ONCE(*pmd)))
			break;
		addr = pmd_addr_end(addr, end);
	}
	mmap_read_unlock(mm);
	return addr;
}

/* Where current maps the start of file, or 0. */
unsigned long nvhv_find_mapping(struct file *file)
{
	struct vm_area_struct *vma;
	unsigned long addr = 0;
	VMA_ITERATOR(vmi, current->mm, 0);

	mmap_read_lock(current->mm);
	for_each_vma(vmi, vma) {
		if (vma->vm_file == file && !vma->vm_pgoff) {
			addr = vma->vm_start;
			break;
		}
	}
	mmap_read_unlock(current->mm);
	return addr;
}

struct dev_pagemap *nvhv_get_devmap(unsigned long pfn)
{
	struct dev_pagemap *pgmap = get_dev_pagemap(pfn);

	if (pgmap && pgmap->type != MEMORY_DEVICE_GENERIC) {
		put_dev_pagemap(pgmap);
		pgmap = NULL;
	}
	return pgmap;
}

void nvhv_put_devmap(struct dev_pagemap *pgmap) { put_dev_pagemap(pgmap); }

void nvhv_msleep(unsigned int ms) { msleep(ms); }
void nvhv_usleep(unsigned long us) { usleep_range(us, 2 * us); }
void nvhv_memalloc(void) { memalloc_noreclaim_save(); }
void nvhv_cond_resched(void) { cond_resched(); }

s64 nvhv_real_ns(void) { return ktime_get_real(); }

void nvhv_wmb(void) { wmb(); }

bool nvhv_tracepoint_named(struct tracepoint *tp, const char *name)
{
	return !strcmp(tp->name, name);
}

void nvhv_tracepoint_sync(void) { tracepoint_synchronize_unregister(); }

const char *nvhv_kernel_release(void) { return utsname()->release; }
