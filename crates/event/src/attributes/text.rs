//! Which text the CloudEvents type system admits in attributes.

/// Why bytes are not admitted as text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TextError {
    /// A control character or noncharacter.
    Forbidden(char),
    /// Not UTF-8. Surrogates, which the specification bans too, are not UTF-8 either.
    NotUtf8,
}

/// UTF-8 without U+0000-001F, U+007F-009F and noncharacters (CloudEvents 1.0.2, type system, String).
pub(super) fn check_text(bytes: &[u8]) -> Result<&str, TextError> {
    // One pass without branches, which the compiler turns into vector code: almost all attributes are printable ASCII.
    let (mut control, mut high) = (false, false);
    for byte in bytes {
        control |= *byte < 0x20 || *byte == 0x7f;
        high |= *byte >= 0x80;
    }
    let text = std::str::from_utf8(bytes).map_err(|_| TextError::NotUtf8)?;
    if (control || high)
        && let Some(forbidden) = text.chars().find(|c| is_forbidden(*c))
    {
        return Err(TextError::Forbidden(forbidden));
    }
    Ok(text)
}

fn is_forbidden(c: char) -> bool {
    let code = u32::from(c);
    // Noncharacters: the last two code points of each plane, and a block of 32 (Unicode 23.7).
    c.is_control() || matches!(code, 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
