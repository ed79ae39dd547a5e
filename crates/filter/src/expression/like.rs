//! Patterns of `LIKE`: `%` for any characters, `_` for one, both escaped by a backslash.

/// A pattern, taken apart once.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// The pieces between the `%`.
    pieces: Vec<Vec<Item>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Item {
    Any,
    Exactly(char),
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let mut pieces = vec![Vec::new()];
        let mut characters = text.chars().peekable();
        while let Some(c) = characters.next() {
            let escaped = match c {
                '%' => {
                    // Two that follow each other are one; the first piece is what the text begins with, also where it is nothing.
                    if pieces.len() == 1 || pieces.last().is_some_and(|last| !last.is_empty()) {
                        pieces.push(Vec::new());
                    }
                    continue;
                }
                '\\' => characters.next_if(|next| matches!(next, '%' | '_')),
                _ => None,
            };
            let item = match (c, escaped) {
                (_, Some(escaped)) => Item::Exactly(escaped),
                ('_', None) => Item::Any,
                (c, None) => Item::Exactly(c),
            };
            if let Some(piece) = pieces.last_mut() {
                piece.push(item);
            }
        }
        Self { pieces }
    }

    /// Whether it is all of `text`. Each comparison of two characters is taken from `work`; `None` where that is used up.
    pub(super) fn matches(&self, text: &str, work: &mut u32) -> Option<bool> {
        let Some((first, rest)) = self.pieces.split_first() else {
            return Some(false);
        };
        let Some(mut text) = begins(text, first, work)? else {
            return Some(false);
        };
        let Some((last, between)) = rest.split_last() else {
            return Some(text.is_empty());
        };
        for piece in between {
            // The first place is as good as any: what follows finds all that it would behind a later one.
            loop {
                if let Some(after) = begins(text, piece, work)? {
                    text = after;
                    break;
                }
                let mut characters = text.chars();
                if characters.next().is_none() {
                    return Some(false);
                }
                text = characters.as_str();
            }
        }
        ends(text, last, work)
    }
}

/// What follows `piece` at the start of `text`.
fn begins<'a>(text: &'a str, piece: &[Item], work: &mut u32) -> Option<Option<&'a str>> {
    let mut characters = text.chars();
    for item in piece {
        *work = work.checked_sub(1)?;
        match (item, characters.next()) {
            (_, None) => return Some(None),
            (Item::Exactly(wanted), Some(c)) if *wanted != c => return Some(None),
            _ => {}
        }
    }
    Some(Some(characters.as_str()))
}

fn ends(text: &str, piece: &[Item], work: &mut u32) -> Option<bool> {
    let mut characters = text.chars();
    for item in piece.iter().rev() {
        *work = work.checked_sub(1)?;
        match (item, characters.next_back()) {
            (_, None) => return Some(false),
            (Item::Exactly(wanted), Some(c)) if *wanted != c => return Some(false),
            _ => {}
        }
    }
    Some(true)
}
