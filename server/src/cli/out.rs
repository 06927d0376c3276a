//! Standard output. Where whoever reads it has gone (`unsaid-relay … | head`) the program ends, as other programs do, without a word.

use std::{
    fmt::Arguments,
    io::{Error, ErrorKind, Write},
};

/// Prints a line.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::out::print(format_args!("{}\n", format_args!($($text)*)))
    };
}
pub(super) use say;

/// Prints text.
pub(super) fn print(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        end(&error);
    }
}

/// Ends the program, since nothing can be printed any more.
pub(super) fn end(error: &Error) -> ! {
    if error.kind() != ErrorKind::BrokenPipe {
        let _ = writeln!(std::io::stderr(), "error: standard output: {error}");
    }
    std::process::exit(1)
}
