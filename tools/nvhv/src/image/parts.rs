// SPDX-License-Identifier: GPL-2.0

//! The file of an exported image: a head and parts, each with a checksum that begins with the one before
//! (`docs/format.md`, "The file of an image"). It can be written to and read from a pipe.
//!
//! What is read is untrusted: lengths are checked before anything is allocated, and nothing of a part is
//! believed before its checksum is.

use nvhv_pure::abi::{Image, ImageBlock, IMAGE_BLOCKS, PIECE_MAX, RECORD};
use nvhv_pure::format::AREA_MAX;
use std::io::{self, Read, Write};

/// First bytes of a file.
pub const MAGIC: [u8; 8] = *b"NVHVFILE";
const PART_MAGIC: [u8; 8] = *b"NVHVPART";
const VERSION: u32 = 1;
/// Bytes of the head.
const HEAD_LEN: usize = 4096;
/// Bytes before the payload of a part.
const PART_LEN: usize = 32;
/// Where the bytes start that a checksum covers, in head and parts.
const SUMMED_FROM: usize = 12;
/// In place of a block: the last part.
pub const END: u32 = u32::MAX - 1;

/// Offsets in the head.
mod at {
    pub const VERSION: usize = 16;
    pub const VCPUS: usize = 20;
    pub const UUID: usize = 24;
    pub const NAME: usize = 40;
    pub const UID: usize = 104;
    pub const RESUMES: usize = 108;
    pub const CREATED: usize = 112;
    pub const POLICY: usize = 120;
    pub const RECORD: usize = 128;
    pub const AREA: usize = 136;
    pub const BLOCKS: usize = 144;
    pub const BLOCK: usize = 152;
    pub const BLOCK_LEN: usize = 24;
}

/// A part.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// A block of RAM, [`RECORD`] or [`END`].
    pub block: u32,
    /// The first byte of the payload in the block.
    pub offset: u64,
    /// Its content.
    pub payload: Vec<u8>,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum Fault {
    /// Reading or writing fails.
    Io(io::Error),
    /// It ends before its last part.
    Short,
    /// It is no such file, or of another version, or damaged.
    Bad(&'static str),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Io(error) => error.fmt(f),
            Fault::Short => f.write_str("it ends too early: export the image again"),
            Fault::Bad(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Short,
            _ => Fault::Io(error),
        }
    }
}

/// Writes a file, from its beginning or from the end of some part.
pub struct Writer<W> {
    to: W,
    sum: u32,
}

impl<W: Write> Writer<W> {
    /// Begins the file of `image`.
    pub fn new(mut to: W, image: &Image) -> io::Result<Self> {
        let head = head(image);
        to.write_all(&head)?;
        Ok(Writer {
            to,
            sum: sum_of(&head),
        })
    }

    /// Goes on in a file whose good part ends at `mark`.
    pub fn after(to: W, mark: Mark) -> Self {
        Writer { to, sum: mark.sum }
    }

    /// Adds a part.
    pub fn part(&mut self, block: u32, offset: u64, payload: &[u8]) -> io::Result<()> {
        let mut part = [0; PART_LEN];
        part[..8].copy_from_slice(&PART_MAGIC);
        // CAST: a piece of RAM, or a record.
        part[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        part[16..20].copy_from_slice(&block.to_le_bytes());
        part[24..32].copy_from_slice(&offset.to_le_bytes());
        self.sum = part_sum(self.sum, &part, payload);
        part[8..12].copy_from_slice(&self.sum.to_le_bytes());
        self.to.write_all(&part)?;
        self.to.write_all(payload)
    }

    /// Ends the file.
    pub fn end(mut self) -> io::Result<W> {
        self.part(END, 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// A block of RAM, and a byte in it.
type Place = Option<(u32, u64)>;

/// The end of a part, or of the head.
#[derive(Clone, Copy)]
pub struct Mark {
    /// Its checksum.
    sum: u32,
    /// Bytes before it.
    pub read: u64,
}

/// Reads a file.
pub struct Reader<R> {
    from: R,
    mark: Mark,
    /// Where the next part of RAM may begin; none before the record.
    next: Place,
    image: Image,
}

impl<R: Read> Reader<R> {
    /// Reads the head.
    pub fn new(mut from: R) -> Result<Self, Fault> {
        let mut head = [0; HEAD_LEN];
        from.read_exact(&mut head)?;
        let image = image(&head)?;
        Ok(Reader {
            from,
            next: None,
            mark: Mark {
                sum: sum_of(&head),
                read: HEAD_LEN as u64,
            },
            image,
        })
    }

    /// Whether the head is that of `image`.
    pub fn is_of(&self, image: &Image) -> bool {
        head(&self.image) == head(image)
    }

    /// What the head says.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The next part: the record, then RAM in ascending order, then [`END`].
    pub fn part(&mut self) -> Result<Part, Fault> {
        let mut part = [0; PART_LEN];
        self.from.read_exact(&mut part)?;
        let (len, block, offset) = (u32_at(&part, 12), u32_at(&part, 16), u64_at(&part, 24));
        let damaged = || Fault::Bad("it is damaged: export the image again");
        if part[..8] != PART_MAGIC || u64::from(len) > self.most(block) {
            return Err(damaged());
        }
        let mut payload = vec![0; len as usize];
        self.from.read_exact(&mut payload)?;
        let sum = part_sum(self.mark.sum, &part, &payload);
        if sum != u32_at(&part, 8) || u32_at(&part, 20) != 0 {
            return Err(damaged());
        }
        self.next = self
            .after(block, offset, len.into())
            .ok_or(Fault::Bad("its parts make no sense"))?;
        self.mark.sum = sum;
        self.mark.read += (PART_LEN + payload.len()) as u64;
        Ok(Part {
            block,
            offset,
            payload,
        })
    }

    /// Where the next part of RAM may begin after a part, if it may be where it is.
    fn after(&self, block: u32, offset: u64, len: u64) -> Option<Place> {
        let is_first = self.next.is_none();
        match block {
            RECORD => {
                (is_first && offset == 0 && len == self.image.record_bytes).then_some(Some((0, 0)))
            }
            END => (!is_first && offset == 0).then_some(Some((END, 0))),
            _ => {
                let blocks = self.image.block.get(..self.image.blocks as usize)?;
                let end = offset.checked_add(len)?;
                let inside = end <= blocks.get(block as usize)?.len;
                (inside && self.next? <= (block, offset)).then_some(Some((block, end)))
            }
        }
    }

    /// The end of what was read last.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// That nothing follows.
    pub fn expect_end(mut self) -> Result<(), Fault> {
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(Fault::Bad("something follows its end")),
        }
    }

    /// The most bytes that a part of `block` has.
    fn most(&self, block: u32) -> u64 {
        match block {
            END => 0,
            RECORD => self.image.record_bytes.min(AREA_MAX),
            _ => PIECE_MAX,
        }
    }
}

fn head(image: &Image) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    // CAST: a page.
    put(12, &(HEAD_LEN as u32).to_le_bytes());
    put(at::VERSION, &VERSION.to_le_bytes());
    put(at::VCPUS, &image.vcpus.to_le_bytes());
    put(at::UUID, &image.uuid);
    put(at::NAME, &image.name);
    put(at::UID, &image.uid.to_le_bytes());
    put(at::RESUMES, &image.resumes.to_le_bytes());
    put(at::CREATED, &image.created_ns.to_le_bytes());
    put(at::POLICY, &image.policy.to_le_bytes());
    put(at::RECORD, &image.record_bytes.to_le_bytes());
    put(at::AREA, &image.area_bytes.to_le_bytes());
    put(at::BLOCKS, &image.blocks.to_le_bytes());
    let blocks = image.block.iter().take(image.blocks as usize);
    for (i, block) in blocks.enumerate() {
        let start = at::BLOCK + i * at::BLOCK_LEN;
        put(start, &block.gpa.to_le_bytes());
        put(start + 8, &block.len.to_le_bytes());
        put(start + 16, &block.flags.to_le_bytes());
    }
    let sum = sum_of(&head);
    head[8..12].copy_from_slice(&sum.to_le_bytes());
    head
}

fn image(head: &[u8; HEAD_LEN]) -> Result<Image, Fault> {
    if head[..8] != MAGIC {
        return Err(Fault::Bad("it is no exported image"));
    }
    if sum_of(head) != u32_at(head, 8) || u32_at(head, 12) as usize != HEAD_LEN {
        return Err(Fault::Bad("it is damaged: export the image again"));
    }
    if u32_at(head, at::VERSION) != VERSION {
        return Err(Fault::Bad("it is of another version of nvhv"));
    }
    let blocks = u32_at(head, at::BLOCKS);
    let used = at::BLOCK + (blocks as usize).min(IMAGE_BLOCKS) * at::BLOCK_LEN;
    let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    if blocks as usize > IMAGE_BLOCKS
        || !is_zero(&head[used..])
        || !is_zero(&head[at::BLOCKS + 4..at::BLOCK])
    {
        return Err(Fault::Bad("its head makes no sense"));
    }
    let mut image = Image {
        vcpus: u32_at(head, at::VCPUS),
        uid: u32_at(head, at::UID),
        resumes: u32_at(head, at::RESUMES),
        created_ns: u64_at(head, at::CREATED),
        policy: u64_at(head, at::POLICY),
        record_bytes: u64_at(head, at::RECORD),
        area_bytes: u64_at(head, at::AREA),
        blocks,
        ..Image::ZERO
    };
    image.uuid.copy_from_slice(&head[at::UUID..at::NAME]);
    image.name.copy_from_slice(&head[at::NAME..at::UID]);
    for (i, block) in image.block.iter_mut().take(blocks as usize).enumerate() {
        let start = at::BLOCK + i * at::BLOCK_LEN;
        *block = ImageBlock {
            gpa: u64_at(head, start),
            len: u64_at(head, start + 8),
            flags: u64_at(head, start + 16),
        };
    }
    Ok(image)
}

fn sum_of(head: &[u8; HEAD_LEN]) -> u32 {
    crc32c::crc32c(&head[SUMMED_FROM..])
}

fn part_sum(before: u32, part: &[u8; PART_LEN], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(before, &part[SUMMED_FROM..]), payload)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with a record of 10 bytes and a block of 3 MiB.
    fn example() -> Image {
        let mut image = Image {
            uuid: *b"an image's uuid.",
            uid: 1000,
            vcpus: 2,
            resumes: 3,
            blocks: 1,
            created_ns: 4,
            policy: 1,
            record_bytes: 10,
            area_bytes: 1 << 20,
            ..Image::ZERO
        };
        image.name[..2].copy_from_slice(b"vm");
        image.block[0] = ImageBlock {
            gpa: 1 << 20,
            len: 3 << 20,
            flags: 0,
        };
        image
    }

    fn file() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &example()).expect("writes");
        writer.part(RECORD, 0, b"the record").expect("writes");
        writer.part(0, 4096, &[7; 4096]).expect("writes");
        writer.part(0, 2 << 20, &[8; 4096]).expect("writes");
        writer.end().expect("ends")
    }

    /// Reads all of a file.
    fn read(file: &[u8]) -> Result<(Image, Vec<Part>), Fault> {
        let mut reader = Reader::new(file)?;
        let mut parts = Vec::new();
        loop {
            let part = reader.part()?;
            if part.block == END {
                break;
            }
            parts.push(part);
        }
        let image = *reader.image();
        reader.expect_end()?;
        Ok((image, parts))
    }

    #[test]
    fn is_read_as_it_was_written() {
        let (image, parts) = read(&file()).expect("reads");
        let want = example();
        assert_eq!(
            (image.name, image.uuid, image.uid, image.block),
            (want.name, want.uuid, want.uid, want.block)
        );
        assert_eq!(
            (image.record_bytes, image.area_bytes, image.policy),
            (want.record_bytes, want.area_bytes, want.policy)
        );
        let about: Vec<_> = parts.iter().map(|part| (part.block, part.offset)).collect();
        assert_eq!(about, [(RECORD, 0), (0, 4096), (0, 2 << 20)]);
        assert_eq!(parts[0].payload, b"the record");
    }

    #[test]
    fn any_bit_that_is_wrong_is_found() {
        let good = file();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(read(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn any_end_that_is_too_early_is_found() {
        let good = file();
        for len in 0..good.len() {
            assert!(matches!(read(&good[..len]), Err(Fault::Short)), "{len}");
        }
        assert!(read(&[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn parts_cannot_change_places_or_be_left_out() {
        let good = file();
        let record = HEAD_LEN..HEAD_LEN + PART_LEN + 10;
        let first = record.end..record.end + PART_LEN + 4096;
        let second = first.end..first.end + PART_LEN + 4096;
        let rest = &good[second.end..];
        let head = &good[..record.end];
        let swapped = [head, &good[second.clone()], &good[first], rest].concat();
        assert!(read(&swapped).is_err());
        assert!(read(&[head, &good[second], rest].concat()).is_err());
    }

    #[test]
    fn parts_come_in_order_and_inside() {
        let orders: [&[(u32, u64, usize)]; 6] = [
            &[(0, 0, 4096)],
            &[(RECORD, 0, 10), (RECORD, 0, 10)],
            &[(RECORD, 0, 10), (0, 8192, 4096), (0, 8192, 4096)],
            &[(RECORD, 0, 10), (1, 0, 4096)],
            &[(RECORD, 0, 10), (0, (3 << 20) - 4096, 8192)],
            &[(RECORD, 0, 9)],
        ];
        for parts in orders {
            let mut writer = Writer::new(Vec::new(), &example()).expect("writes");
            for &(block, offset, len) in parts {
                writer.part(block, offset, &vec![1; len]).expect("writes");
            }
            let file = writer.end().expect("ends");
            assert!(matches!(read(&file), Err(Fault::Bad(_))), "{parts:?}");
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let mut bad = file();
        bad[HEAD_LEN + 12..HEAD_LEN + 16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&bad), Err(Fault::Bad(_))));
    }
}
