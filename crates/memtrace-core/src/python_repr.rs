//! Strings as Python's `repr` writes them.

use std::fmt::Write;

/// Writes a string as Python's `repr` does: in single quotes, or in double quotes when it holds
/// single ones only, with everything that is not printable escaped.
pub(crate) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == quote => {
                out.push('\\');
                out.push(c);
            }
            _ if is_printable(c) => out.push(c),
            _ => push_escape(&mut out, u32::from(c)),
        }
    }
    out.push(quote);
    out
}

fn push_escape(out: &mut String, code: u32) {
    let written = match code {
        0..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
    written.expect("writing to a String cannot fail");
}

/// Python calls a character printable unless it is a control, a format character, a separator
/// other than the blank, or unassigned. The standard library's own escaping uses the same
/// classes, except that it also escapes a combining mark at the *start* of a string, hence the
/// letter in front.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\u{7f}' => false,
        _ => {
            let mut buffer = [b'a'; 5];
            let n_bytes = c.encode_utf8(&mut buffer[1..]).len();
            let text = std::str::from_utf8(&buffer[..=n_bytes]).unwrap_or_default();
            text.escape_debug().nth(1) == Some(c)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quotes_are_chosen_as_python_chooses_them() {
        assert_eq!(quoted("a"), "'a'");
        assert_eq!(quoted("it's"), "\"it's\"");
        assert_eq!(quoted("it's \"b\""), "'it\\'s \"b\"'");
    }

    #[test]
    fn what_is_not_printable_is_escaped() {
        assert_eq!(quoted("\\ \t\r\n\0\x7f"), r"'\\ \t\r\n\x00\x7f'");
        assert_eq!(quoted("\u{85}\u{a0}\u{ad}"), r"'\x85\xa0\xad'");
        assert_eq!(quoted("\u{200b}\u{2028}\u{ffff}"), r"'\u200b\u2028\uffff'");
        assert_eq!(quoted("\u{e0001}\u{10ffff}"), r"'\U000e0001\U0010ffff'");
    }

    #[test]
    fn letters_marks_and_pictures_are_printable() {
        assert_eq!(quoted("é日😀e\u{301}\u{301}"), "'é日😀e\u{301}\u{301}'");
    }
}
