// SPDX-License-Identifier: GPL-2.0

//! Our operations on the files of a hooked VM.
//!
//! Each hooked file gets a table of operations of its own: a copy of KVM's with a few entries
//! replaced, embedded in our object. So the object is found from the file by an address
//! computation, without a look-up and without touching `private_data`, which is KVM's.
//!
//! The file's references to modules balance like this. `__fput` drops the owner of the operations
//! that the file has then; a hooked file took a reference to our module when it was hooked. KVM's
//! reference, taken when the file was made, is dropped by our release function. The embedded table
//! goes with its object, so release leaves the file with a static table of the same owner.

use super::{
    vcpu::Vcpu,
    vm::{Phase, Vm},
};
use crate::{
    queue,
    state::kvm_abi as abi,
    sys::{c, file::FileRef, task, user},
};
use core::{mem, ptr, sync::atomic::Ordering};
use kernel::{
    prelude::*,
    sync::{Arc, ArcBorrow},
};

/// What a file has between our release function and its end.
static TOMBSTONE: Tombstone = Tombstone(c::file_operations {
    owner: crate::THIS.as_ptr().cast(),
    // SAFETY: All-zero is a valid `file_operations`: no operation.
    ..unsafe { mem::zeroed() }
});

struct Tombstone(c::file_operations);

// SAFETY: Never written.
unsafe impl Sync for Tombstone {}

/// KVM's operations with the VM's entries replaced.
pub(super) fn vm_operations(orig: &c::file_operations) -> c::file_operations {
    replaced(orig, vm_ioctl, vm_flush, vm_release)
}

/// KVM's operations with the vCPU's entries replaced.
pub(super) fn vcpu_operations(orig: &c::file_operations) -> c::file_operations {
    replaced(orig, vcpu_ioctl, vcpu_flush, vcpu_release)
}

type Ioctl = unsafe extern "C" fn(*mut c::file, u32, usize) -> isize;
type Flush = unsafe extern "C" fn(*mut c::file, c::fl_owner_t) -> i32;
type Release = unsafe extern "C" fn(*mut c::inode, *mut c::file) -> i32;

fn replaced(
    orig: &c::file_operations,
    ioctl: Ioctl,
    flush: Flush,
    release: Release,
) -> c::file_operations {
    // SAFETY: The structure is plain data: function pointers and flags.
    let mut ops = unsafe { ptr::read(orig) };
    ops.owner = crate::THIS.as_ptr().cast();
    ops.unlocked_ioctl = Some(ioctl);
    // A 32-bit VMM would get past the gate.
    ops.compat_ioctl = None;
    ops.flush = Some(flush);
    ops.release = Some(release);
    ops
}

/// Gives `file` the operations at `ops`, and with them one reference to our module.
///
/// # Safety
///
/// `ops` are valid until the release function in them was called; the file has KVM's operations.
pub(super) unsafe fn hook(file: &FileRef, ops: *const c::file_operations) {
    // SAFETY: Our module is live while its code runs. The pointer is replaced in one store, and both
    // tables serve a caller that has just read either.
    unsafe {
        c::nvhv_module_get(crate::THIS.as_ptr().cast());
        ptr::addr_of_mut!((*file.as_ptr()).f_op).write_volatile(ops);
    }
}

/// Undoes [`hook`] at the file's end and calls KVM's release function.
///
/// # Safety
///
/// `file` is being released and was hooked; `orig` are KVM's operations of it.
unsafe fn unhook(inode: *mut c::inode, file: *mut c::file, orig: &c::file_operations) -> i32 {
    // SAFETY: By this function's contract; nobody else uses a file that is being released.
    unsafe {
        (*file).f_op = &TOMBSTONE.0;
        let ret = orig.release.map_or(0, |release| release(inode, file));
        c::module_put(orig.owner);
        ret
    }
}

/// The VM whose file this is.
///
/// # Safety
///
/// `file` has operations made by [`vm_operations`] for a `Vm`, and lives for `'a`.
unsafe fn vm_of<'a>(file: *mut c::file) -> ArcBorrow<'a, Vm> {
    // SAFETY: The operations are the `fops` of a `Vm`, which the file holds a reference to.
    unsafe { ArcBorrow::from_raw(kernel::container_of!((*file).f_op.cast_mut(), Vm, fops)) }
}

/// The vCPU whose file this is.
///
/// # Safety
///
/// `file` has operations made by [`vcpu_operations`] for a `Vcpu`, and lives for `'a`.
unsafe fn vcpu_of<'a>(file: *mut c::file) -> ArcBorrow<'a, Vcpu> {
    // SAFETY: As in `vm_of`.
    unsafe { ArcBorrow::from_raw(kernel::container_of!((*file).f_op.cast_mut(), Vcpu, fops)) }
}

unsafe extern "C" fn vm_ioctl(file: *mut c::file, request: u32, arg: usize) -> isize {
    // SAFETY: The kernel calls this on a file with our operations, which it holds.
    let vm = unsafe { vm_of(file) };
    // SAFETY: As above.
    unsafe { vm.ioctl(file, request, arg) }
}

unsafe extern "C" fn vcpu_ioctl(file: *mut c::file, request: u32, arg: usize) -> isize {
    // SAFETY: As in `vm_ioctl`.
    let vcpu = unsafe { vcpu_of(file) };
    if !task::is_current_mm(&vcpu.vm.mm) {
        return EIO.to_errno() as isize;
    }
    if request == abi::RUN {
        // SAFETY: As in `vm_ioctl`.
        return unsafe { vcpu.vm.as_arc_borrow().run(vcpu, file, arg) };
    }
    if matches!(
        request,
        abi::SET_REGS | abi::SET_SREGS | abi::SET_SREGS2 | abi::SET_MP_STATE
    ) {
        // The VMM resets a machine that had powered itself off.
        vcpu.vm.powered_off.store(false, Ordering::Relaxed);
    }
    let Ok(_inside) = vcpu.vm.gate.enter() else {
        return -(c::NVHV_RESTARTNOINTR as isize);
    };
    vcpu.vm.note_caps(request);
    // SAFETY: As in `vm_ioctl`.
    let pass = || unsafe { vcpu.kvm.call_raw(file, request, arg) };
    if queue::concerns(request) {
        return vcpu.vm.devices.ioctl(request, arg, pass);
    }
    let ret = pass();
    if request == abi::GET_MSRS && ret > 0 {
        // What of a processor is never in `kvm_run`: who copies one reads them.
        vcpu.note_copied();
    }
    // While it is being resumed, a VMM may hand back what it has read: the state after reset.
    if ret == 0
        && request == abi::SET_REGS
        && vcpu.id == 0
        && vcpu.vm.phase() == Phase::Live
        && points_to_reset_vector(arg)
    {
        vcpu.vm.devices.reset();
    }
    ret
}

/// Whether the registers at `arg` are those of a processor after reset (Intel SDM, volume 3, table
/// 10-1): a VMM sets them when it resets its machine, after the devices.
fn points_to_reset_vector(arg: usize) -> bool {
    const RIP: usize = 16 * 8;
    let mut rip = [0; 8];
    user::read(arg + RIP, &mut rip).is_ok() && u64::from_le_bytes(rip) == 0xfff0
}

unsafe extern "C" fn vm_flush(file: *mut c::file, _id: c::fl_owner_t) -> i32 {
    // SAFETY: As in `vm_ioctl`.
    unsafe { vm_of(file) }.closed_by_current();
    0
}

unsafe extern "C" fn vcpu_flush(file: *mut c::file, _id: c::fl_owner_t) -> i32 {
    // SAFETY: As in `vm_ioctl`.
    let vcpu = unsafe { vcpu_of(file) };
    vcpu.vm.as_arc_borrow().closed_by_current();
    0
}

unsafe extern "C" fn vm_release(inode: *mut c::inode, file: *mut c::file) -> i32 {
    // SAFETY: The file is at its end and gives up the reference it was hooked with.
    let vm = unsafe { Arc::from_raw(ptr::from_ref(&*vm_of(file))) };
    vm.kvm.forget();
    vm.file_released();
    // SAFETY: By this function's call.
    unsafe { unhook(inode, file, vm.kvm.operations()) }
}

unsafe extern "C" fn vcpu_release(inode: *mut c::inode, file: *mut c::file) -> i32 {
    // SAFETY: As in `vm_release`.
    let vcpu = unsafe { Arc::from_raw(ptr::from_ref(&*vcpu_of(file))) };
    vcpu.kvm.forget();
    vcpu.release_vm_file();
    vcpu.vm.file_released();
    // SAFETY: By this function's call.
    unsafe { unhook(inode, file, vcpu.kvm.operations()) }
}
