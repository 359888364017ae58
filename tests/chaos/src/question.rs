//! What requests ask and how their answers are checked. The function that answers is in `tests/functions/chaos`; this is written anew, not shared with it.

/// Bytes of a question beside its payload, and of an answer beside it.
const QUESTION_BYTES: usize = 32;
const ANSWER_BYTES: usize = 56;
/// Of the text by which a module says which version it is.
const VERSION_BYTES: usize = 16;
const VERSION_WORD: &[u8] = b"version-";

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Its number; no two have the same.
    pub id: u64,
    /// What the answer is worked out from.
    pub nonce: u64,
    /// How long the function is to keep its core.
    pub spin_us: u64,
    /// Bytes of payload, which are worked out from the nonce.
    pub payload: usize,
}

/// An answer that is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// Of the module that answered.
    pub version: u32,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is whole, but the answer to another question.
    #[error("the answer to question {0}")]
    Other(u64),
    /// Its length or its checksum is wrong.
    #[error("damaged")]
    Damaged,
    /// It is whole and says something else than f(nonce), or another payload.
    #[error("not what was to be worked out")]
    Result,
    /// It began with one version of the module and ended with another.
    #[error("of two versions of the module")]
    Mixed,
}

impl Question {
    /// The request's body.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.clear();
        for word in [self.id, self.nonce, self.spin_us] {
            to.extend(word.to_le_bytes());
        }
        to.extend(self.payload());
        let sum = fnv1a(to);
        to.extend(sum.to_le_bytes());
    }

    /// Bytes of the request's body.
    #[must_use]
    pub fn len(&self) -> usize {
        QUESTION_BYTES + self.payload
    }

    /// Never: a question has a head.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    fn payload(&self) -> impl DoubleEndedIterator<Item = u8> + use<> {
        let key = self.nonce.to_le_bytes();
        (0..self.payload).map(move |i| key[i % key.len()] ^ i.to_le_bytes()[0])
    }

    /// Whether this body is the answer.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn check(&self, body: &[u8]) -> Result<Right, Wrong> {
        let (answer, sum) = body.split_last_chunk::<8>().ok_or(Wrong::Damaged)?;
        if body.len() < ANSWER_BYTES || fnv1a(answer) != u64::from_le_bytes(*sum) {
            return Err(Wrong::Damaged);
        }
        let word =
            |at: usize| u64::from_le_bytes(*answer[at..].first_chunk().expect("the length was checked"));
        if word(0) != self.id {
            return Err(Wrong::Other(word(0)));
        }
        let (began, rest) = answer[16..].split_at(VERSION_BYTES);
        let (ended, payload) = rest.split_at(VERSION_BYTES);
        if word(8) != f(self.nonce) || !self.payload().rev().eq(payload.iter().copied()) {
            return Err(Wrong::Result);
        }
        if began != ended {
            return Err(Wrong::Mixed);
        }
        version(began).map(|version| Right { version }).ok_or(Wrong::Result)
    }
}

fn version(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text.strip_prefix(VERSION_WORD)?).ok()?.parse().ok()
}

/// splitmix64.
fn f(nonce: u64) -> u64 {
    let mut z = nonce.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What the function answers: for tests of those who check.
#[must_use]
pub fn answer(question: &Question, version: u32) -> Vec<u8> {
    let mut body = [question.id, f(question.nonce)].map(u64::to_le_bytes).concat();
    let version = format!("version-{version:08}");
    body.extend(version.as_bytes());
    body.extend(version.as_bytes());
    body.extend(question.payload().rev());
    body.extend(fnv1a(&body).to_le_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question = Question { id: 5, nonce: 77, spin_us: 0, payload: 100 };

    #[test]
    fn a_right_answer_is_right_and_each_wrong_one_wrong() {
        let right = answer(&QUESTION, 3);
        assert_eq!(QUESTION.check(&right), Ok(Right { version: 3 }));
        for at in 0..right.len() {
            let mut damaged = right.clone();
            damaged[at] ^= 1;
            assert_eq!(QUESTION.check(&damaged), Err(Wrong::Damaged), "byte {at}");
        }
        assert_eq!(QUESTION.check(&right[..40]), Err(Wrong::Damaged));
        assert_eq!(QUESTION.check(&[]), Err(Wrong::Damaged));
        let other = Question { id: 6, ..QUESTION };
        assert_eq!(QUESTION.check(&answer(&other, 3)), Err(Wrong::Other(6)));
        for other in [Question { nonce: 78, ..QUESTION }, Question { payload: 99, ..QUESTION }] {
            assert_eq!(QUESTION.check(&answer(&other, 3)), Err(Wrong::Result));
        }
        let mut mixed = right[..right.len() - 8].to_vec();
        mixed[31] ^= 1;
        mixed.extend(fnv1a(&mixed).to_le_bytes());
        assert_eq!(QUESTION.check(&mixed), Err(Wrong::Mixed));
    }

    #[test]
    fn a_question_has_its_length() {
        let mut body = Vec::new();
        QUESTION.write(&mut body);
        assert_eq!(body.len(), QUESTION.len());
        assert!(!QUESTION.is_empty());
    }
}
