//! The update frame: the one message that carries what a browser learned.

use crate::{ClientId, ContentHash, DecodeError, Reader, TaskId, UpdateId, VERSION};

const MAGIC: [u8; 4] = *b"UNSU";

/// Bytes that one coordinate takes in a frame: the least width that holds its largest coordinate, or the one that the task fixes.
///
/// A frame's length is seen by whoever sees the traffic, and told in a round's figures. Where the coordinates have their noise, the least
/// width tells nothing that they do not. In mode `central` they have none yet: there the width is that of the bound of all updates
/// ([`Self::for_bound`]), the same for every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CoordinateWidth {
    /// −128 to 127.
    One = 1,
    /// −32,768 to 32,767.
    Two = 2,
    /// −8,388,608 to 8,388,607.
    Three = 3,
    /// Every `i32`.
    Four = 4,
}

impl CoordinateWidth {
    /// The least width that holds every coordinate.
    pub fn for_coordinates(coordinates: &[i32]) -> Self {
        // v ^ (v >> 31) maps v and −v−1 to the same non-negative number: the magnitude that decides the width.
        Self::for_reach(coordinates.iter().fold(0, |reach, v| reach | (v ^ (v >> 31))))
    }

    /// The least width that holds every coordinate, by the bits that any `v ^ (v >> 31)` of them has.
    pub const fn for_reach(reach: i32) -> Self {
        match reach {
            0..=0x7f => Self::One,
            0x80..=0x7fff => Self::Two,
            0x8000..=0x7f_ffff => Self::Three,
            _ => Self::Four,
        }
    }

    /// The least width that holds every coordinate of whatever has at most this squared norm, in grid steps².
    ///
    /// ```
    /// use unsaid_protocol::CoordinateWidth;
    /// assert_eq!(CoordinateWidth::for_bound(127 * 127), CoordinateWidth::One);
    /// assert_eq!(CoordinateWidth::for_bound(128 * 128), CoordinateWidth::Two);
    /// ```
    pub const fn for_bound(bound_squared: u64) -> Self {
        // The squares of 2⁷, 2¹⁵ and 2²³, the least magnitudes that do not fit.
        if bound_squared < 1 << 14 {
            Self::One
        } else if bound_squared < 1 << 30 {
            Self::Two
        } else if bound_squared < 1 << 46 {
            Self::Three
        } else {
            Self::Four
        }
    }

    /// Whether a frame of this width has the one that it should have: the one that its task fixes, or where none is fixed `least`, which
    /// holds every coordinate.
    ///
    /// # Errors
    /// [`DecodeError::Field`] where it is another.
    pub fn check(self, least: Self, fixed: Option<Self>) -> Result<(), DecodeError> {
        let (wanted, expected) = match fixed {
            Some(fixed) => (fixed, "the width that the task fixes"),
            None => (least, "the least width that holds every coordinate"),
        };
        if self == wanted {
            return Ok(());
        }
        Err(DecodeError::Field {
            field: "coordinate width",
            value: self.bytes() as u64,
            expected,
        })
    }

    /// The width in bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// Appends the coordinates that `payload` holds. Bytes after the last whole one are left out.
    #[inline(always)] // into callers that are compiled for a processor with wide registers
    pub fn read(self, payload: &[u8], coordinates: &mut Vec<i32>) {
        match self {
            Self::One => widen::<1>(payload, coordinates),
            Self::Two => widen::<2>(payload, coordinates),
            Self::Three => widen::<3>(payload, coordinates),
            Self::Four => widen::<4>(payload, coordinates),
        }
    }

    /// The coordinate that `WIDTH` bytes, 1 to 4, hold.
    #[inline(always)]
    pub fn coordinate<const WIDTH: usize>(bytes: &[u8; WIDTH]) -> i32 {
        let mut word = [0; 4];
        word[4 - WIDTH..].copy_from_slice(bytes);
        i32::from_le_bytes(word) >> (32 - 8 * WIDTH as u32) // the arithmetic shift restores the sign
    }

    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        match byte {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            3 => Ok(Self::Three),
            4 => Ok(Self::Four),
            other => Err(DecodeError::Field {
                field: "coordinate width",
                value: other.into(),
                expected: "1, 2, 3 or 4",
            }),
        }
    }
}

/// One client's contribution to one round: a vector of whole grid steps, clipped and (where the task says so) noised
/// before it was put here.
///
/// Layout, little-endian (`PROTOCOL.md`, “Update frame”): magic `UNSU`, version `u16`, width `u8`, reserved `u8` = 0, update
/// id 16, client id 16, manifest hash 32, model hash 32, round `u64`, count `u32`, then `count` two's-complement
/// coordinates of `width` bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateFrame {
    /// Chosen at random; the same id with the same bytes is counted once.
    pub update: UpdateId,
    /// Who sends it.
    pub client: ClientId,
    /// The manifest that the client agreed to.
    pub manifest: ContentHash,
    /// The model that the client started from.
    pub model: ContentHash,
    /// The round that it contributes to.
    pub round: u64,
    /// One whole number of grid steps for each model parameter.
    pub coordinates: Vec<i32>,
}

/// What a frame says before its coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateHeader {
    /// Bytes of each coordinate.
    pub width: CoordinateWidth,
    /// As [`UpdateFrame::update`].
    pub update: UpdateId,
    /// As [`UpdateFrame::client`].
    pub client: ClientId,
    /// As [`UpdateFrame::manifest`].
    pub manifest: ContentHash,
    /// As [`UpdateFrame::model`].
    pub model: ContentHash,
    /// As [`UpdateFrame::round`].
    pub round: u64,
    /// Coordinates that follow.
    pub count: u32,
}

impl UpdateHeader {
    /// Reads the [`UpdateFrame::HEADER_LEN`] bytes that a frame begins with.
    ///
    /// # Errors
    /// [`DecodeError`] where they are none of a frame's.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.header(MAGIC, "an update frame")?;
        let width = CoordinateWidth::from_byte(reader.u8("coordinate width")?)?;
        match reader.u8("reserved")? {
            0 => {}
            other => {
                return Err(DecodeError::Field {
                    field: "reserved",
                    value: other.into(),
                    expected: "0",
                });
            }
        }
        Ok(Self {
            width,
            update: UpdateId::from_bytes(reader.array("update id")?),
            client: ClientId::from_bytes(reader.array("client id")?),
            manifest: ContentHash::from_bytes(reader.array("manifest hash")?),
            model: ContentHash::from_bytes(reader.array("model hash")?),
            round: reader.u64("round")?,
            count: reader.u32("count")?,
        })
    }

    /// Bytes that the coordinates take.
    ///
    /// # Errors
    /// [`DecodeError::Field`] where this machine has no memory of that size.
    pub fn payload_len(&self) -> Result<usize, DecodeError> {
        let length = (self.count as usize).checked_mul(self.width.bytes());
        length.ok_or(DecodeError::Field {
            field: "count",
            value: self.count.into(),
            expected: "a number of coordinates that fits in memory",
        })
    }
}

impl UpdateFrame {
    /// Bytes before the coordinates.
    pub const HEADER_LEN: usize = 4 + 2 + 1 + 1 + 16 + 16 + 32 + 32 + 8 + 4;

    /// The most bytes that a frame of `parameters` coordinates can have: the relay's limit on a request body.
    pub const fn max_len(parameters: usize) -> usize {
        Self::HEADER_LEN + 4 * parameters
    }

    /// The bytes that cross the network in a task that fixes no width.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_in(None)
    }

    /// The bytes that cross the network in a task that fixes this width, if it fixes one. Coordinates that it does not hold get the width
    /// that they need: such a frame is refused.
    pub fn encode_in(&self, fixed: Option<CoordinateWidth>) -> Vec<u8> {
        let width = CoordinateWidth::for_coordinates(&self.coordinates);
        let width = fixed.map_or(width, |fixed| fixed.max(width));
        let mut out = Vec::with_capacity(Self::HEADER_LEN + width.bytes() * self.coordinates.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[width as u8, 0]);
        out.extend_from_slice(self.update.as_bytes());
        out.extend_from_slice(self.client.as_bytes());
        out.extend_from_slice(self.manifest.as_bytes());
        out.extend_from_slice(self.model.as_bytes());
        out.extend_from_slice(&self.round.to_le_bytes());
        out.extend_from_slice(&(self.coordinates.len() as u32).to_le_bytes());
        for coordinate in &self.coordinates {
            out.extend_from_slice(&coordinate.to_le_bytes()[..width.bytes()]);
        }
        out
    }

    /// Reads a frame of a task that fixes no width.
    ///
    /// # Errors
    /// As [`Self::decode_in`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_in(bytes, None)
    }

    /// Reads a frame of a task that fixes this width, if it fixes one.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but exactly one frame: the count must match the bytes that follow it, the width must
    /// be the fixed one, or without one the least that holds the coordinates, the reserved byte must be 0.
    pub fn decode_in(bytes: &[u8], fixed: Option<CoordinateWidth>) -> Result<Self, DecodeError> {
        let (frame, width) = Self::read(bytes)?;
        width.check(CoordinateWidth::for_coordinates(&frame.coordinates), fixed)?;
        Ok(frame)
    }

    /// Reads a frame of whatever task, and its width. Whether that is the right one is left to whoever knows the task.
    ///
    /// # Errors
    /// As [`Self::decode_in`], of all but the width.
    pub fn read(bytes: &[u8]) -> Result<(Self, CoordinateWidth), DecodeError> {
        let mut reader = Reader::new(bytes);
        let header = UpdateHeader::read(&mut reader)?;
        // The bytes are taken before anything is allocated, so a false count cannot ask for memory.
        let payload = reader.bytes(header.payload_len()?, "coordinates")?;
        reader.finish()?;
        let mut coordinates = Vec::new();
        header.width.read(payload, &mut coordinates);
        let frame = Self {
            update: header.update,
            client: header.client,
            manifest: header.manifest,
            model: header.model,
            round: header.round,
            coordinates,
        };
        Ok((frame, header.width))
    }

    /// The path that a client posts the frame to, below the relay's base address.
    pub fn path(task: &TaskId) -> String {
        format!("/v1/tasks/{task}/updates")
    }
}

#[inline(always)]
fn widen<const WIDTH: usize>(payload: &[u8], coordinates: &mut Vec<i32>) {
    let (chunks, _) = payload.as_chunks::<WIDTH>();
    coordinates.extend(chunks.iter().map(CoordinateWidth::coordinate));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(coordinates: Vec<i32>) -> UpdateFrame {
        UpdateFrame {
            update: UpdateId::from_bytes([0x11; 16]),
            client: ClientId::from_bytes([0x22; 16]),
            manifest: ContentHash::from_bytes([0x33; 32]),
            model: ContentHash::from_bytes([0x44; 32]),
            round: 0x0102_0304,
            coordinates,
        }
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let bytes = frame(vec![1, -2, 300]).encode();
        let expected = [
            b"UNSU".as_slice(),
            &[1, 0],                         // version
            &[2],                            // width: 300 needs two bytes
            &[0],                            // reserved
            &[0x11; 16],                     // update id
            &[0x22; 16],                     // client id
            &[0x33; 32],                     // manifest hash
            &[0x44; 32],                     // model hash
            &[4, 3, 2, 1, 0, 0, 0, 0],       // round
            &[3, 0, 0, 0],                   // count
            &[1, 0, 0xfe, 0xff, 0x2c, 0x01], // 1, −2, 300
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(UpdateFrame::decode(&bytes), Ok(frame(vec![1, -2, 300])));
    }

    #[test]
    fn the_width_is_the_least_that_holds_the_extremes() {
        for (value, width) in [
            (0, 1),
            (127, 1),
            (-128, 1),
            (128, 2),
            (-129, 2),
            (-32768, 2),
            (32768, 3),
            (-8_388_608, 3),
            (8_388_608, 4),
            (i32::MIN, 4),
            (i32::MAX, 4),
        ] {
            let frame = frame(vec![0, value]);
            assert_eq!(
                frame.encode().len(),
                UpdateFrame::HEADER_LEN + 2 * width,
                "{value}"
            );
            assert_eq!(UpdateFrame::decode(&frame.encode()), Ok(frame), "{value}");
        }
    }

    #[test]
    fn where_the_task_fixes_the_width_no_frame_has_another_whatever_its_coordinates() {
        let two = Some(CoordinateWidth::for_bound(1_049_602)); // 1,024 steps and what rounding adds
        assert_eq!(two, Some(CoordinateWidth::Two));
        let lengths = [0, 1, -127, 128, -1_024].map(|value| {
            let frame = frame(vec![0, value]);
            let bytes = frame.encode_in(two);
            assert_eq!(UpdateFrame::decode_in(&bytes, two), Ok(frame.clone()), "{value}");
            assert_eq!(
                UpdateFrame::read(&bytes),
                Ok((frame, CoordinateWidth::Two)),
                "{value}"
            );
            bytes.len()
        });
        assert_eq!(lengths, [UpdateFrame::HEADER_LEN + 4; 5]);
        // The least width, and one that out-of-bound coordinates need, are refused; and the fixed one where none is fixed.
        let refused = |bytes: &[u8], fixed| {
            matches!(
                UpdateFrame::decode_in(bytes, fixed),
                Err(DecodeError::Field {
                    field: "coordinate width",
                    ..
                })
            )
        };
        assert!(refused(&frame(vec![0, 1]).encode(), two));
        assert!(refused(&frame(vec![0, 40_000]).encode_in(two), two));
        assert!(refused(&frame(vec![0, 1]).encode_in(two), None));
    }

    #[test]
    fn the_width_of_a_bound_holds_what_obeys_it_and_no_less_does() {
        for (largest, width) in [
            (0_u64, 1),
            (127, 1),
            (128, 2),
            (32_767, 2),
            (32_768, 3),
            (8_388_607, 3),
            (8_388_608, 4),
        ] {
            let found = CoordinateWidth::for_bound(largest * largest);
            assert_eq!(found.bytes(), width, "{largest}");
            // One less than the next square: no coordinate is larger.
            assert_eq!(CoordinateWidth::for_bound((largest + 1).pow(2) - 1), found);
        }
        assert_eq!(CoordinateWidth::for_bound(u64::MAX), CoordinateWidth::Four);
    }

    #[test]
    fn each_bad_frame_is_refused_with_its_own_reason() {
        let good = frame(vec![5; 4]).encode();
        let change = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            UpdateFrame::decode(&bytes)
        };
        assert!(matches!(change(0, b'X'), Err(DecodeError::Magic { .. })));
        assert_eq!(
            change(4, 2),
            Err(DecodeError::Version {
                found: 2,
                expected: 1
            })
        );
        assert!(matches!(
            change(6, 5),
            Err(DecodeError::Field {
                field: "coordinate width",
                ..
            })
        ));
        assert!(matches!(
            change(7, 1),
            Err(DecodeError::Field {
                field: "reserved",
                ..
            })
        ));
        assert!(matches!(
            change(112, 5),
            Err(DecodeError::Truncated {
                field: "coordinates",
                ..
            })
        ));
        assert_eq!(change(112, 3), Err(DecodeError::TrailingBytes(1)));
        // 4 coordinates of 1 byte, said to be 2 of 2 bytes: 0x0505 needs two bytes, so this is another valid frame …
        let mut wide = frame(vec![1, 1]).encode();
        wide[6] = 2;
        wide.extend_from_slice(&[0, 0]);
        wide[UpdateFrame::HEADER_LEN..].copy_from_slice(&[1, 0, 1, 0]);
        // … and this one is wider than it has to be.
        assert!(matches!(
            UpdateFrame::decode(&wide),
            Err(DecodeError::Field {
                field: "coordinate width",
                ..
            })
        ));
    }

    #[test]
    fn every_truncation_of_a_frame_is_refused() {
        let good = frame(vec![5; 4]).encode();
        for length in 0..good.len() {
            assert!(UpdateFrame::decode(&good[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_false_count_allocates_nothing() {
        let mut bytes = frame(vec![]).encode();
        let count = UpdateFrame::HEADER_LEN - 4;
        bytes[count..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            UpdateFrame::decode(&bytes),
            Err(DecodeError::Truncated { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_frame_survives_a_round_trip(coordinates: Vec<i32>, round: u64) {
            let frame = UpdateFrame { round, ..frame(coordinates) };
            prop_assert_eq!(UpdateFrame::decode(&frame.encode()), Ok(frame));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_decode_only_to_themselves(bytes: Vec<u8>) {
            if let Ok(frame) = UpdateFrame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }

        #[test]
        fn a_frame_with_one_byte_changed_never_panics(at in 0usize..120, to: u8) {
            let mut bytes = frame(vec![1, -70000, 3]).encode();
            bytes[at] = to;
            if let Ok(frame) = UpdateFrame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }
    }
}
