//! Reading an update while it arrives: every byte is widened and measured once, while it is near the processor.

use unsaid_protocol::{CoordinateWidth, DecodeError, Reader, UpdateFrame, UpdateHeader};

use crate::{
    actor::Submission,
    exact::{self, Block, Measure},
    live::TaskConfig,
    round::{Claim, FrameHasher, Refusal},
};

#[cfg(test)]
mod tests;

/// An update of which some bytes have come. It says of them all that can be said without the task's state.
///
/// It holds at most as many coordinates as the task's updates have, whatever the frame says.
pub struct Intake<'a> {
    config: &'a TaskConfig,
    /// Bytes of the frame so far.
    bytes: usize,
    hasher: FrameHasher,
    head: Head,
    /// Bytes of the coordinates that have not come.
    left: usize,
    /// Bytes of a coordinate that has come in part.
    torn: Vec<u8>,
    coordinates: Vec<i32>,
    /// How many have come.
    came: usize,
    /// The block of them that is not whole yet.
    block: Block,
    /// Whether they are as many as the task's: others are looked at, and not kept.
    kept: bool,
    /// Of the coordinates that are the change of the model.
    change: Measure,
    /// Of those after it.
    after: Measure,
}

enum Head {
    Begun(Vec<u8>),
    Whole(Result<UpdateHeader, DecodeError>),
}

impl<'a> Intake<'a> {
    /// Of an update to this task, which its client signed, or did not: that decides about its digest, so that one which was counted before
    /// the task asked for identities is still known.
    pub fn new(config: &'a TaskConfig, is_signed: bool) -> Self {
        Self {
            config,
            bytes: 0,
            hasher: FrameHasher::new(is_signed),
            head: Head::Begun(Vec::new()),
            left: 0,
            torn: Vec::new(),
            coordinates: Vec::new(),
            came: 0,
            block: Block::default(),
            kept: false,
            change: Measure::default(),
            after: Measure::default(),
        }
    }

    /// The next bytes.
    pub fn push(&mut self, part: &[u8]) {
        self.bytes += part.len();
        let mut rest = part;
        if let Head::Begun(begun) = &mut self.head {
            let (of_head, after) = rest.split_at(rest.len().min(UpdateFrame::HEADER_LEN - begun.len()));
            self.hasher.head(of_head);
            begun.extend_from_slice(of_head);
            if begun.len() < UpdateFrame::HEADER_LEN {
                return;
            }
            let header = UpdateHeader::read(&mut Reader::new(begun));
            self.begin(header);
            rest = after;
        }
        if let Head::Whole(Ok(header)) = &self.head {
            let (width, of_payload) = (header.width, rest.len().min(self.left));
            self.left -= of_payload;
            self.take(width, &rest[..of_payload]);
        }
    }

    fn begin(&mut self, header: Result<UpdateHeader, DecodeError>) {
        let header = header.and_then(|header| {
            self.left = header.payload_len()?;
            Ok(header)
        });
        let expected = self.config.coordinates();
        self.kept = header
            .as_ref()
            .is_ok_and(|header| header.count as usize == expected);
        if self.kept {
            self.coordinates = self.config.buffers.take(expected);
        }
        self.head = Head::Whole(header);
    }

    fn take(&mut self, width: CoordinateWidth, payload: &[u8]) {
        let mut payload = payload;
        if !self.torn.is_empty() {
            let (of_torn, after) = payload.split_at(payload.len().min(width.bytes() - self.torn.len()));
            self.torn.extend_from_slice(of_torn);
            self.hasher.coordinates(of_torn);
            if self.torn.len() < width.bytes() {
                return;
            }
            let torn = std::mem::take(&mut self.torn);
            self.widen(width, &torn);
            payload = after;
        }
        let (whole, torn) = payload.split_at(payload.len() - payload.len() % width.bytes());
        for block in whole.chunks(exact::BLOCK * width.bytes()) {
            self.hasher.coordinates(block);
            self.widen(width, block);
        }
        self.hasher.coordinates(torn);
        self.torn.extend_from_slice(torn);
    }

    /// The next whole coordinates.
    fn widen(&mut self, width: CoordinateWidth, whole: &[u8]) {
        let parameters = self.config.manifest.parameters as usize;
        let mut rest = whole;
        while !rest.is_empty() {
            let mut next = (exact::BLOCK - self.block.length).min(rest.len() / width.bytes());
            let is_change = self.came < parameters;
            if is_change {
                next = next.min(parameters - self.came);
            }
            let (read, after) = rest.split_at(next * width.bytes());
            let measure = exact::read(width, read, &mut self.coordinates, &mut self.block);
            match is_change {
                true => self.change += measure,
                false => self.after += measure,
            }
            self.came += next;
            if self.block.length == exact::BLOCK {
                self.hasher.block(&std::mem::take(&mut self.block));
            }
            rest = after;
        }
        if !self.kept {
            self.coordinates.clear();
        }
    }

    /// What the frame is. Coordinates that do not fit the task are said beside the rest, and not in its place: a client that
    /// repeats an accepted update, or comes late, should learn that first.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are no frame, as [`UpdateFrame::decode_in`] has it.
    pub fn finish(mut self) -> Result<Submission, DecodeError> {
        let header = match &self.head {
            Head::Begun(begun) => UpdateHeader::read(&mut Reader::new(begun))?,
            Head::Whole(header) => header.clone()?,
        };
        let (needed, left) = (header.payload_len()?, self.bytes - UpdateFrame::HEADER_LEN);
        if left < needed {
            return Err(DecodeError::Truncated {
                field: "coordinates",
                needed,
                left,
            });
        }
        if left > needed {
            return Err(DecodeError::TrailingBytes(left - needed));
        }
        let least = CoordinateWidth::for_reach(self.change.reach | self.after.reach);
        header.width.check(least, self.config.fixed_width())?;
        self.hasher.block(&self.block);
        let claim = Claim::of(&header, self.hasher.digest(), self.bytes as u64);
        Ok(Submission {
            claim,
            coordinates: self.fit(&header),
        })
    }

    fn fit(self, header: &UpdateHeader) -> Result<Vec<i32>, Refusal> {
        let (found, expected) = (header.count as usize, self.config.coordinates());
        if found != expected {
            return Err(Refusal::Coordinates { found, expected });
        }
        let parameters = self.config.manifest.parameters as usize;
        let most = self.config.strategy.aggregation.max_weight();
        if let (Some(&found), Some(most)) = (self.coordinates.get(parameters), most)
            && !u32::try_from(found).is_ok_and(|weight| (1..=most).contains(&weight))
        {
            return Err(Refusal::Weight { found, most });
        }
        match self.config.norm_bound {
            Some(bound) if self.change.square > u128::from(bound) => Err(Refusal::Norm {
                found: self.change.square,
                bound,
            }),
            _ => Ok(self.coordinates),
        }
    }
}
