// SPDX-License-Identifier: GPL-2.0
//! Threads that keep patterns in all sixteen AVX registers nearly all of the time.

use crate::sys::Random;
use crate::{report::report, sys, ticks, Orders};
use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

type Registers = [[u64; 4]; 16];

pub fn work(orders: &Orders) -> ! {
    if !std::arch::is_x86_feature_detected!("avx") {
        report("fail fpu: this processor has no AVX");
    }
    let rounds = Arc::new(AtomicU64::new(0));
    for thread in 0..orders.threads() {
        let rounds = rounds.clone();
        sys::pinned(thread, move || {
            let mut random = Random(thread as u64);
            loop {
                let kept: Registers =
                    std::array::from_fn(|_| std::array::from_fn(|_| random.next()));
                // SAFETY: AVX is there, as was checked above.
                let found = unsafe { keep(&kept, 2_000_000) };
                if found != kept {
                    let register = (0..16).find(|&i| found[i] != kept[i]).unwrap_or(0);
                    report(&format!(
                        "fail fpu {thread}: ymm{register} was {:x?}, is {:x?}",
                        kept[register], found[register]
                    ));
                }
                rounds.fetch_add(1, Relaxed);
            }
        });
    }
    ticks(|| rounds.load(Relaxed).to_string())
}

/// Loads the registers, spins, and stores them again, with nothing in between that could save them.
///
/// # Safety
///
/// The processor has AVX.
unsafe fn keep(kept: &Registers, spins: u64) -> Registers {
    let mut found: Registers = [[0; 4]; 16];
    // SAFETY: The caller vouches for AVX; both arrays are 16 times 32 bytes.
    unsafe {
        asm!(
            "vmovdqu ymm0, [{kept}]", "vmovdqu ymm1, [{kept}+32]", "vmovdqu ymm2, [{kept}+64]", "vmovdqu ymm3, [{kept}+96]",
            "vmovdqu ymm4, [{kept}+128]", "vmovdqu ymm5, [{kept}+160]", "vmovdqu ymm6, [{kept}+192]", "vmovdqu ymm7, [{kept}+224]",
            "vmovdqu ymm8, [{kept}+256]", "vmovdqu ymm9, [{kept}+288]", "vmovdqu ymm10, [{kept}+320]", "vmovdqu ymm11, [{kept}+352]",
            "vmovdqu ymm12, [{kept}+384]", "vmovdqu ymm13, [{kept}+416]", "vmovdqu ymm14, [{kept}+448]", "vmovdqu ymm15, [{kept}+480]",
            "2:", "dec {spins}", "jnz 2b",
            "vmovdqu [{found}], ymm0", "vmovdqu [{found}+32], ymm1", "vmovdqu [{found}+64], ymm2", "vmovdqu [{found}+96], ymm3",
            "vmovdqu [{found}+128], ymm4", "vmovdqu [{found}+160], ymm5", "vmovdqu [{found}+192], ymm6", "vmovdqu [{found}+224], ymm7",
            "vmovdqu [{found}+256], ymm8", "vmovdqu [{found}+288], ymm9", "vmovdqu [{found}+320], ymm10", "vmovdqu [{found}+352], ymm11",
            "vmovdqu [{found}+384], ymm12", "vmovdqu [{found}+416], ymm13", "vmovdqu [{found}+448], ymm14", "vmovdqu [{found}+480], ymm15",
            "vzeroupper",
            kept = in(reg) kept.as_ptr(), found = in(reg) found.as_mut_ptr(), spins = inout(reg) spins => _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
    found
}
