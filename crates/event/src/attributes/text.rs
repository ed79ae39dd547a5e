//! Which text the CloudEvents type system admits in attributes.

/// Why bytes are not admitted as text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TextError {
    /// A control character or noncharacter.
    Forbidden(char),
    /// Not UTF-8. Surrogates, which the specification bans too, are not UTF-8 either.
    NotUtf8,
}

/// Bytes of which a first part, as long as it could be, is known to be UTF-8. Attributes with values below 128 bytes are
/// that as a whole, lengths included, if their values are: one pass serves for all of them.
pub(super) struct Utf8Prefix<'a>(&'a str);

impl<'a> Utf8Prefix<'a> {
    /// Looks at all `bytes`.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let valid = match std::str::from_utf8(bytes) {
            Ok(valid) => Ok(valid),
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]),
        };
        Self(valid.unwrap_or_default())
    }

    /// `part`, which lies at [start, end) of the bytes, as text.
    #[inline]
    pub(super) fn part(
        &self,
        start: usize,
        end: usize,
        part: &'a [u8],
    ) -> Result<&'a str, TextError> {
        match self.0.get(start..end) {
            Some(text) => Ok(text),
            // Behind the prefix, or cut within a character.
            None => std::str::from_utf8(part).map_err(|_| TextError::NotUtf8),
        }
    }
}

/// Without U+0000-001F, U+007F-009F and noncharacters (CloudEvents 1.0.2, type system, String).
#[inline]
pub(super) fn check_characters(text: &str) -> Result<&str, TextError> {
    if !is_printable_ascii(text.as_bytes())
        && let Some(forbidden) = text.chars().find(|c| is_forbidden(*c))
    {
        return Err(TextError::Forbidden(forbidden));
    }
    Ok(text)
}

/// Whether all bytes are 0x20 to 0x7e, as almost all attributes are; eight at a time.
#[inline]
fn is_printable_ascii(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let mut others = 0;
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut look = |chunk: [u8; 8]| {
        let eight = u64::from_ne_bytes(chunk);
        // The high bit of each byte: set as it came; set by 1 more from 0x7f on; not set by 0x60 more below 0x20. A sum
        // reaches into the next byte only from bytes whose high bit came set.
        others |= eight | eight.wrapping_add(ONES) | !eight.wrapping_add(0x60 * ONES);
    };
    for chunk in chunks {
        look(*chunk);
    }
    match bytes.last_chunk::<8>() {
        // The last eight once more, some of them looked at already.
        Some(chunk) if !rest.is_empty() => look(*chunk),
        Some(_) => {}
        None => {
            for byte in rest {
                look([*byte; 8]);
            }
        }
    }
    others & (0x80 * ONES) == 0
}

fn is_forbidden(c: char) -> bool {
    let code = u32::from(c);
    // Noncharacters: the last two code points of each plane, and a block of 32 (Unicode 23.7).
    c.is_control() || matches!(code, 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(bytes: &[u8]) -> Result<&str, TextError> {
        check_characters(Utf8Prefix::of(bytes).part(0, bytes.len(), bytes)?)
    }

    #[test]
    fn the_bans_of_the_type_system_hold_at_their_edges() {
        let admitted = [
            '\u{20}',
            '\u{7e}',
            '\u{a0}',
            '\u{fdcf}',
            '\u{fdf0}',
            '\u{fffd}',
            '\u{10000}',
            '\u{10fffd}',
        ];
        let banned = [
            '\u{0}',
            '\u{9}',
            '\u{a}',
            '\u{1f}',
            '\u{7f}',
            '\u{80}',
            '\u{9f}',
            '\u{fdd0}',
            '\u{fdef}',
            '\u{fffe}',
            '\u{ffff}',
            '\u{1fffe}',
            '\u{1ffff}',
            '\u{10ffff}',
        ];
        for c in admitted {
            let text = format!("a{c}z");
            assert_eq!(check_text(text.as_bytes()), Ok(text.as_str()));
        }
        for c in banned {
            let text = format!("a{c}z");
            assert_eq!(check_text(text.as_bytes()), Err(TextError::Forbidden(c)));
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        for bytes in [
            &b"\x80"[..],
            b"\xc0\xa0",
            b"\xed\xa0\x80",
            b"\xff",
            b"a\xe2\x82",
        ] {
            assert_eq!(check_text(bytes), Err(TextError::NotUtf8));
        }
    }

    #[test]
    fn a_banned_byte_is_found_at_every_place_of_every_length() {
        for length in 1..40 {
            for at in 0..length {
                for byte in 0..=0x7f_u8 {
                    let mut bytes = vec![b'~'; length];
                    bytes[at] = byte;
                    let expected = match byte {
                        0..0x20 | 0x7f => Err(TextError::Forbidden(char::from(byte))),
                        _ => Ok(()),
                    };
                    assert_eq!(check_text(&bytes).map(|_| ()), expected, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn a_part_is_text_by_its_own_bytes_whatever_stands_around_it() {
        let check =
            |before: &[u8], part: &[u8], after: &[u8], expected: Result<&str, TextError>| {
                let all = [before, part, after].concat();
                let (start, end) = (before.len(), before.len() + part.len());
                let found = Utf8Prefix::of(&all).part(start, end, &all[start..end]);
                assert_eq!(found, expected, "{all:?}");
            };
        let umlaut = "\u{e9}".as_bytes();
        for around in [&b""[..], b"a", b"\x00\x7f", b"\xff", b"\x80", umlaut] {
            check(around, b"abc", around, Ok("abc"));
            check(around, umlaut, around, Ok("\u{e9}"));
            check(around, b"\xff", around, Err(TextError::NotUtf8));
        }
        // A length byte that makes a character with the first byte of the value, or a value that ends within one.
        check(&umlaut[..1], &umlaut[1..], b"a", Err(TextError::NotUtf8));
        check(b"a", &umlaut[..1], &umlaut[1..], Err(TextError::NotUtf8));
    }
}
