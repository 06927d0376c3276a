//! Short names for what a wasm module imports from its glue.
//!
//! wasm-bindgen names each import after its function with 16 hexadecimal digits behind it, in the wasm and in the JavaScript.
//! Nobody reads them there, and digits do not compress: 7.5 kB of 150, gzipped, for the trainer.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

/// Sections of a wasm module (WebAssembly core specification 2.0, section 5.5).
const IMPORTS: u8 = 2;

/// Renames the imports of `wasm` and, in the same way, what the object of imports in `glue` is made of. The names depend on the
/// glue alone, so modules that share one glue get the same.
pub(crate) fn shorten(glue: &Path, wasm: &Path) -> Result<()> {
    let text = fs::read_to_string(glue).with_context(|| glue.display().to_string())?;
    let bytes = fs::read(wasm).with_context(|| wasm.display().to_string())?;
    let (text, names) = rename_glue(&text);
    let bytes = rename_imports(&bytes, &names).with_context(|| wasm.display().to_string())?;
    fs::write(glue, text)?;
    fs::write(wasm, bytes)?;
    Ok(())
}

/// Gives every member `__wb…: function` of the glue a short name: the new text, and the old and the new names.
fn rename_glue(text: &str) -> (String, Vec<(String, String)>) {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut renamed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let name = line.trim_start();
        let indent = &line[..line.len() - name.len()];
        match name.split_once(": function") {
            Some((name, rest)) if name.starts_with("__wb") && is_identifier(name) => {
                let short = short_name(names.len());
                renamed.extend([indent, &short, ": function", rest]);
                names.push((name.to_owned(), short));
            }
            _ => renamed.push_str(line),
        }
    }
    (renamed, names)
}

fn is_identifier(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// `a` to `z`, then `aa`, `ba`, …
fn short_name(mut index: usize) -> String {
    let mut name = String::new();
    loop {
        name.push(char::from(b'a' + (index % 26) as u8));
        index /= 26;
        if index == 0 {
            return name;
        }
        index -= 1;
    }
}

/// The module with its functions' imports renamed.
fn rename_imports(module: &[u8], names: &[(String, String)]) -> Result<Vec<u8>> {
    let mut from = Reader { bytes: module };
    let mut to = from.take(8)?.to_vec(); // magic and version
    let mut renamed = 0;
    while !from.bytes.is_empty() {
        let section = from.byte()?;
        let len = from.number()?;
        let body = from.take(len)?;
        let body = if section == IMPORTS {
            let (body, count) = rename_section(body, names)?;
            renamed = count;
            body
        } else {
            body.to_vec()
        };
        to.push(section);
        write_number(&mut to, body.len());
        to.extend(body);
    }
    if renamed == 0 {
        bail!("none of its imports is in the glue");
    }
    Ok(to)
}

fn rename_section(body: &[u8], names: &[(String, String)]) -> Result<(Vec<u8>, usize)> {
    let mut from = Reader { bytes: body };
    let count = from.number()?;
    let (mut to, mut renamed) = (Vec::new(), 0);
    write_number(&mut to, count);
    for _ in 0..count {
        let (module, name) = (from.text()?, from.text()?);
        let short = names.iter().find(|(old, _)| old.as_bytes() == name);
        renamed += usize::from(short.is_some());
        for text in [module, short.map_or(name, |(_, new)| new.as_bytes())] {
            write_number(&mut to, text.len());
            to.extend(text);
        }
        to.extend(from.description()?);
    }
    if !from.bytes.is_empty() {
        bail!("its imports do not end where they should");
    }
    Ok((to, renamed))
}

/// Reads a module's bytes.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len).context("it is cut off")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned number in LEB128.
    fn number(&mut self) -> Result<usize> {
        let mut number = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(usize::try_from(number)?);
            }
        }
        bail!("a number is too long")
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let len = self.number()?;
        self.take(len)
    }

    /// What an import is: a function's type, a table, a memory or a global.
    fn description(&mut self) -> Result<&'a [u8]> {
        let start = self.bytes;
        match self.byte()? {
            0 => {
                self.number()?;
            }
            kind @ (1 | 2) => {
                if kind == 1 {
                    self.byte()?;
                }
                let flags = self.byte()?;
                self.number()?;
                if flags & 1 == 1 {
                    self.number()?;
                }
            }
            3 => {
                self.take(2)?;
            }
            kind => bail!("an import is of the unknown kind {kind}"),
        }
        Ok(&start[..start.len() - self.bytes.len()])
    }
}

fn write_number(to: &mut Vec<u8>, mut number: usize) {
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return to.push(byte);
        }
        to.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLUE: &str = "const import0 = {\n    __wbg_new_0123456789abcdef: function() { return __wbg_new_0123456789abcdef; },\n    \
                        __wbindgen_cast_1: function(a) {},\n    other: function() {},\n};\n";

    /// A module that imports two functions of the glue, one that is not in it, and a memory with a maximum; and has a custom
    /// section behind.
    fn module() -> Vec<u8> {
        let mut imports = vec![4];
        for (name, description) in [
            ("__wbindgen_cast_1", &[0u8, 5][..]),
            ("__wbg_new_0123456789abcdef", &[0, 0x85, 1]),
            ("elsewhere", &[0, 0]),
            ("memory", &[2, 1, 17, 0x80, 0x80, 1]),
        ] {
            imports.extend([3]);
            imports.extend(b"mod");
            imports.push(name.len() as u8);
            imports.extend(name.bytes());
            imports.extend(description);
        }
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        module.push(IMPORTS);
        write_number(&mut module, imports.len());
        module.extend(imports);
        module.extend([0, 3, 1, b'x', 9]);
        module
    }

    #[test]
    fn wasm_and_glue_are_renamed_alike_and_the_rest_stays() {
        let (glue, names) = rename_glue(GLUE);
        assert_eq!(
            glue,
            "const import0 = {\n    a: function() { return __wbg_new_0123456789abcdef; },\n    b: function(a) {},\n    other: \
             function() {},\n};\n"
        );
        let renamed = rename_imports(&module(), &names).unwrap();
        let expected =
            b"\0asm\x01\0\0\0\x02\x33\x04\x03mod\x01b\0\x05\x03mod\x01a\0\x85\x01\x03mod\x09elsewhere\0\0\
                         \x03mod\x06memory\x02\x01\x11\x80\x80\x01\0\x03\x01x\x09";
        assert_eq!(renamed, expected);
    }

    #[test]
    fn a_module_that_is_cut_off_or_imports_nothing_of_the_glue_is_refused() {
        let (_, names) = rename_glue(GLUE);
        let module = module();
        for len in 0..module.len() - 5 {
            assert!(rename_imports(&module[..len], &names).is_err(), "{len}");
        }
        assert!(rename_imports(&module, &[]).is_err());
    }

    #[test]
    fn short_names_are_all_different() {
        let mut names: Vec<String> = (0..2000).map(short_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 2000);
        assert_eq!([0, 25, 26, 27, 52].map(short_name), ["a", "z", "aa", "ba", "ab"]);
    }
}
