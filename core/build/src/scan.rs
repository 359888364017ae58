//! Reading an author's source: no `unsafe`, and which functions it has.
//!
//! The word `unsafe` is looked for in the token stream, so in macro bodies, too, and never in comments or texts. The
//! compiler's own `forbid` refuses it as well; this check names it before anything is compiled, and sees it in macros
//! that are not used.

use std::path::{Path, PathBuf};

use microfaas_abi::is_function_name;
use proc_macro2::{TokenStream, TokenTree};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit::Visit;
use syn::{Attribute, Expr, ExprLit, Item, ItemFn, ItemMod, Lit, Meta, Token, Visibility};

use crate::error::{BuildError, io_error};

/// A function that the shim exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Modules from the crate root.
    pub(crate) modules: Vec<String>,
    pub(crate) ident: String,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
}

impl Function {
    /// `file:line`.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// Path of its definition in a crate that depends on the author's as `krate`.
    pub(crate) fn path(&self, krate: &str) -> String {
        let mut path = format!("::{krate}::");
        for module in &self.modules {
            path.push_str(module);
            path.push_str("::");
        }
        path.push_str("__microfaas_");
        path.push_str(self.ident.strip_prefix("r#").unwrap_or(&self.ident));
        path
    }
}

/// Reads the crate whose root is `root`.
pub(crate) fn scan(root: &Path) -> Result<Vec<Function>, BuildError> {
    let mut scan = Scan { functions: Vec::new() };
    let file = read(root)?;
    if !file.attrs.iter().any(forbids_unsafe) {
        return Err(BuildError::NotForbidden(root.to_owned()));
    }
    let dir = root.parent().unwrap_or(Path::new("."));
    scan.items(
        &file.items,
        &mut Place { file: root, dir: dir.to_owned(), modules: Vec::new(), private: None },
    )?;
    let mut sorted: Vec<&Function> = scan.functions.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(duplicate(pair[0], pair[1]));
    }
    if scan.functions.is_empty() {
        return Err(BuildError::NoFunction(root.to_owned()));
    }
    Ok(scan.functions)
}

pub(crate) fn duplicate(first: &Function, second: &Function) -> BuildError {
    BuildError::DuplicateFunction { name: first.name.clone(), first: first.place(), second: second.place() }
}

fn read(path: &Path) -> Result<syn::File, BuildError> {
    let text = std::fs::read_to_string(path).map_err(io_error(path, "read"))?;
    let syntax = |line, message: String| BuildError::Syntax { file: path.to_owned(), line, message };
    let file = syn::parse_file(&text).map_err(|e| syntax(e.span().start().line, e.to_string()))?;
    let body =
        text.strip_prefix("#!").filter(|rest| !rest.trim_start().starts_with('[')).map_or(&*text, |_| {
            // A first line for the kernel is no Rust; the newline stays, for the numbers.
            text.find('\n').map_or("", |at| &text[at..])
        });
    let tokens: TokenStream =
        body.parse().map_err(|e: proc_macro2::LexError| syntax(e.span().start().line, e.to_string()))?;
    match unsafe_line(tokens) {
        Some(line) => Err(BuildError::Unsafe { file: path.to_owned(), line }),
        None => Ok(file),
    }
}

fn unsafe_line(tokens: TokenStream) -> Option<usize> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "unsafe" => Some(ident.span().start().line),
        TokenTree::Group(group) => unsafe_line(group.stream()),
        _ => None,
    })
}

fn forbids_unsafe(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    attribute.path().is_ident("forbid")
        && Punctuated::<Meta, Token![,]>::parse_terminated
            .parse2(list.tokens.clone())
            .is_ok_and(|lints| lints.iter().any(|lint| lint.path().is_ident("unsafe_code")))
}

/// Where in the crate the items at hand are.
struct Place<'a> {
    file: &'a Path,
    /// Where `mod x;` looks.
    dir: PathBuf,
    modules: Vec<String>,
    /// The first module on the way that is not `pub`.
    private: Option<String>,
}

struct Scan {
    functions: Vec<Function>,
}

impl Scan {
    fn items(&mut self, items: &[Item], place: &mut Place<'_>) -> Result<(), BuildError> {
        for item in items {
            match item {
                Item::Mod(module) if !is_for_tests(&module.attrs) => self.module(module, place)?,
                Item::Mod(_) => {}
                Item::Fn(function) => self.function(function, place)?,
                _ => {}
            }
            if !matches!(item, Item::Mod(_)) {
                refuse_nested(item, place)?;
            }
        }
        Ok(())
    }

    fn module(&mut self, module: &ItemMod, place: &mut Place<'_>) -> Result<(), BuildError> {
        let ident = module.ident.to_string();
        let plain = ident.strip_prefix("r#").unwrap_or(&ident).to_owned();
        let private = match (&place.private, &module.vis) {
            (Some(private), _) => Some(private.clone()),
            (None, Visibility::Public(_)) => None,
            (None, _) => Some(ident.clone()),
        };
        let mut modules = place.modules.clone();
        modules.push(ident);
        let named = path_attribute(&module.attrs);
        if let Some((_, items)) = &module.content {
            let dir = place.dir.join(named.as_deref().unwrap_or(&plain));
            return self.items(items, &mut Place { file: place.file, dir, modules, private });
        }
        let beside = place.file.parent().unwrap_or(Path::new("."));
        let candidates = match &named {
            Some(path) => vec![(beside.join(path), beside.join(path).parent().map(Path::to_owned))],
            None => vec![
                (place.dir.join(format!("{plain}.rs")), Some(place.dir.join(&plain))),
                (place.dir.join(&plain).join("mod.rs"), Some(place.dir.join(&plain))),
            ],
        };
        // One that is missing is the compiler's to name: it may be configured away.
        let Some((path, dir)) = candidates.into_iter().find(|(path, _)| path.is_file()) else {
            return Ok(());
        };
        let file = read(&path)?;
        let dir = dir.unwrap_or_else(|| place.dir.clone());
        self.items(&file.items, &mut Place { file: &path, dir, modules, private })
    }

    fn function(&mut self, function: &ItemFn, place: &Place<'_>) -> Result<(), BuildError> {
        let Some(attribute) = function.attrs.iter().find(|attribute| is_ours(attribute)) else {
            return Ok(());
        };
        let ident = function.sig.ident.to_string();
        let line = function.sig.ident.span().start().line;
        let unreachable = |why: String| BuildError::Unreachable {
            file: place.file.to_owned(),
            line,
            function: ident.clone(),
            why,
        };
        if let Some(private) = &place.private {
            return Err(unreachable(format!(
                "is in module `{private}`, which is not pub; make the module pub"
            )));
        }
        if function.attrs.iter().any(|attribute| attribute.path().is_ident("cfg")) {
            return Err(unreachable(
                "may be configured away by #[cfg]; put the #[cfg] into its body".to_owned(),
            ));
        }
        let plain = ident.strip_prefix("r#").unwrap_or(&ident);
        let name = name_argument(attribute).unwrap_or_else(|| plain.to_owned());
        if !is_function_name(&name) {
            return Err(BuildError::FunctionName { file: place.file.to_owned(), line, name });
        }
        let modules = place.modules.clone();
        self.functions.push(Function { name, modules, ident, file: place.file.to_owned(), line });
        Ok(())
    }
}

/// Refuses functions inside of functions and the like: they would compile, and never be exported.
fn refuse_nested(item: &Item, place: &Place<'_>) -> Result<(), BuildError> {
    struct Nested(Option<(String, usize)>);
    impl Nested {
        fn look(&mut self, attributes: &[Attribute], signature: &syn::Signature) {
            if attributes.iter().any(is_ours) {
                self.0.get_or_insert((signature.ident.to_string(), signature.ident.span().start().line));
            }
        }
    }
    impl<'ast> Visit<'ast> for Nested {
        fn visit_item_fn(&mut self, function: &'ast ItemFn) {
            self.look(&function.attrs, &function.sig);
            syn::visit::visit_item_fn(self, function);
        }
        fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
            self.look(&function.attrs, &function.sig);
            syn::visit::visit_impl_item_fn(self, function);
        }
    }
    let mut nested = Nested(None);
    match item {
        Item::Fn(function) => syn::visit::visit_item_fn(&mut nested, function),
        other => nested.visit_item(other),
    }
    match nested.0 {
        Some((function, line)) => Err(BuildError::Unreachable {
            file: place.file.to_owned(),
            line,
            function,
            why: "is inside another item; move it to a module".to_owned(),
        }),
        None => Ok(()),
    }
}

fn is_ours(attribute: &Attribute) -> bool {
    let path: Vec<String> =
        attribute.path().segments.iter().map(|segment| segment.ident.to_string()).collect();
    match path.as_slice() {
        [only] => only == "function",
        [krate, last] => krate == "microfaas" && last == "function",
        _ => false,
    }
}

/// Exactly `#[cfg(test)]`.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => attribute.path().is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if attribute.path().is_ident("path") => text(&pair.value),
        _ => None,
    })
}

fn name_argument(attribute: &Attribute) -> Option<String> {
    let Meta::List(list) = &attribute.meta else { return None };
    let arguments = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(list.tokens.clone()).ok()?;
    arguments.iter().find_map(|argument| match argument {
        Meta::NameValue(pair) if pair.path.is_ident("name") => text(&pair.value),
        _ => None,
    })
}

fn text(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
