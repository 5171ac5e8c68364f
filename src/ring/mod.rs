// SPDX-License-Identifier: GPL-2.0

//! Shadow rings: what a device is shown in place of a split virtqueue (virtio 1.3, section 2.7).
//!
//! In the VMM's view of guest RAM, the pages that hold the available and used ring are others than in
//! the guest's. New entries of the available ring are copied to the device's view at each kick, new
//! elements of the used ring to the guest's before each interrupt. So it is always known which requests
//! the device has; and when the VMM is lost, a fresh device, which counts from 0, is given them again.
//!
//! - A request is given to the device once, and once more after each loss: at least once. The guest
//!   sees each request used exactly once.
//! - A fresh device can be told things before it is shown any request, in its own view only: what drivers
//!   have told the one before it through a control queue.
//! - Notification suppression is not passed through. The device is told that every interrupt is wanted,
//!   the driver that every kick is; whether the driver wants an interrupt is told by [`Completed`].
//! - Negotiating any of these breaks the copying, so the guest must not be offered them:
//!   VIRTIO_F_RING_PACKED (another format), VIRTIO_F_IN_ORDER (one used element for many requests),
//!   VIRTIO_F_NOTIFICATION_DATA (kicks that tell the guest's index to the device).
//! - A device must not be asked to take bytes from a shadowed page by other ways than its rings.
//!
//! Pure: no kernel type, no allocation, no lock. `queue` calls it at kicks and interrupts.

mod chain;
mod engine;
mod fault;
mod layout;
mod memory;
mod request;
mod saved;
mod slots;
mod tell;

pub use engine::{Completed, Occasion, Ring};
pub use fault::Fault;
pub use layout::{Layout, SIZE_MAX};
pub use memory::{Memory, View};
pub use request::Request;
pub use slots::Slot;
pub use tell::{told_room, Told};
