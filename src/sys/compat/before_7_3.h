/* SPDX-License-Identifier: GPL-2.0 */
/* What the `kernel` crate has from 7.3 on. */
#ifndef NVHV_BEFORE_7_3_H
#define NVHV_BEFORE_7_3_H

#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/spinlock.h>

void nvhv_spin_init(spinlock_t *lock, const char *name, struct lock_class_key *key);
unsigned long nvhv_spin_lock_irqsave(spinlock_t *lock);
bool nvhv_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags);
void nvhv_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);
void nvhv_spin_assert_held(spinlock_t *lock);

/*
 * Has a file of a misc device, which is being opened, hold this module until it is closed. Its operations come from
 * the kernel crate, and name no owner. -ENODEV if the module is on its way out.
 */
int nvhv_own_file(struct file *file);

#endif
