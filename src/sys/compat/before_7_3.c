// SPDX-License-Identifier: GPL-2.0
/* What the `kernel` crate has from 7.3 on; see before_7_3.h. */
#include <linux/module.h>

#include "before_7_3.h"

void nvhv_spin_init(spinlock_t *lock, const char *name, struct lock_class_key *key)
{
#ifdef CONFIG_DEBUG_SPINLOCK
	__raw_spin_lock_init(spinlock_check(lock), name, key, LD_WAIT_CONFIG);
#else
	spin_lock_init(lock);
#endif
}

unsigned long nvhv_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

bool nvhv_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags) { return spin_trylock_irqsave(lock, *flags); }
void nvhv_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags) { spin_unlock_irqrestore(lock, flags); }
void nvhv_spin_assert_held(spinlock_t *lock) { lockdep_assert_held(lock); }

int nvhv_own_file(struct file *file)
{
	static struct file_operations owned;

	/* The device goes before the module does, and waits for whoever opens it. */
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	/* Files of the device are opened one after the other, and all have the same operations. */
	if (!owned.owner) {
		owned = *file->f_op;
		owned.owner = THIS_MODULE;
	}
	/* Whoever closes the file puts the owner of these. */
	file->f_op = &owned;
	return 0;
}
