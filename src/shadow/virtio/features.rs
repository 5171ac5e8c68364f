// SPDX-License-Identifier: GPL-2.0

//! Feature bits (virtio 1.3, section 6).

/// VIRTIO_F_INDIRECT_DESC
pub const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX
pub const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_ACCESS_PLATFORM: the device's addresses are not the guest's physical ones.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// VIRTIO_F_RING_PACKED
const RING_PACKED: u64 = 1 << 34;
/// VIRTIO_F_IN_ORDER: a used entry may stand for several requests.
const IN_ORDER: u64 = 1 << 35;
/// VIRTIO_F_NOTIFICATION_DATA: a kick carries indexes of the ring, which differ between the views.
const NOTIFICATION_DATA: u64 = 1 << 38;
/// VIRTIO_F_NOTIF_CONFIG_DATA
const NOTIF_CONFIG_DATA: u64 = 1 << 39;
/// VIRTIO_F_RING_RESET: a queue stops without its device.
const RING_RESET: u64 = 1 << 40;
/// VIRTIO_F_ADMIN_VQ
const ADMIN_VQ: u64 = 1 << 41;

/// What shadow rings cannot carry. The guest never sees these bits.
pub const NOT_CARRIED: u64 =
    RING_PACKED | IN_ORDER | NOTIFICATION_DATA | NOTIF_CONFIG_DATA | RING_RESET | ADMIN_VQ;

/// Network device (section 5.1).
pub mod net {
    /// VIRTIO_NET_F_CTRL_VQ
    pub const CTRL_VQ: u64 = 1 << 17;
    /// VIRTIO_NET_F_MQ
    pub const MQ: u64 = 1 << 22;
    /// VIRTIO_NET_F_RSS
    pub const RSS: u64 = 1 << 60;
    /// Where `max_virtqueue_pairs` is in the device's configuration.
    pub const MAX_PAIRS: usize = 8;
}

/// Console (section 5.3).
pub mod console {
    /// VIRTIO_CONSOLE_F_MULTIPORT
    pub const MULTIPORT: u64 = 1 << 1;
    /// The queue by which the driver gives commands.
    pub const CONTROL_TRANSMITQ: u16 = 3;
}

/// Device type 2: block.
pub const BLOCK: u32 = 2;
/// VIRTIO_BLK_F_FLUSH and VIRTIO_BLK_F_CONFIG_WCE: without them a device must not keep in a cache
/// what it has acknowledged (section 5.2.6.2).
pub const BLOCK_CACHE: u64 = (1 << 9) | (1 << 11);
