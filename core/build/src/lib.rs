//! Makes function crates and builds modules of them: what the `microfaas` command's `new` and `build` do.
//!
//! A function crate is an author's ordinary library crate, in safe Rust throughout. [`build()`] reads its source,
//! refuses `unsafe`, finds the functions, generates a *shim* crate that exports them, and has cargo
//! compile both into one shared library, the module.

mod cargo;
mod error;
mod scaffold;
mod scan;
mod shim;

use std::fs;
use std::path::{Path, PathBuf};

use cargo::{Compile, Crate};
pub use error::BuildError;
use error::io_error;
pub use microfaas_manifest::{InspectError, Manifest, inspect};
pub use scaffold::{SdkDependency, scaffold};
use scan::Function;

/// How modules are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Optimised.
    #[default]
    Release,
    /// Quick to compile, with the checks of a debug build.
    Dev,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }
}

/// What to build, and where to.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Directories of function crates.
    pub dirs: Vec<PathBuf>,
    /// Directory for the modules; created.
    pub out: PathBuf,
    /// How to compile.
    pub profile: Profile,
    /// Where cargo compiles; all crates that name the same one share their dependencies there. Without one,
    /// `microfaas` in the target directory of each crate's workspace.
    pub target_dir: Option<PathBuf>,
    /// Whether cargo's output goes to the standard error stream as it comes, instead of into the error.
    pub verbose: bool,
}

impl BuildOptions {
    /// A release build of these crates into `out`.
    #[must_use]
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>, out: impl Into<PathBuf>) -> Self {
        Self {
            dirs: dirs.into_iter().collect(),
            out: out.into(),
            profile: Profile::default(),
            target_dir: None,
            verbose: false,
        }
    }
}

/// A module that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltModule {
    /// Name of the crate.
    pub name: String,
    /// The shared library, `NAME.so` in the output directory.
    pub path: PathBuf,
    /// Its functions, in the order of its table.
    pub functions: Vec<String>,
}

/// Builds a module from each crate. `progress` gets lines for a person.
///
/// Nothing in the output directory changes unless all of them were built; a module is replaced by renaming, so that who has the
/// old one open keeps it.
///
/// # Errors
/// See [`BuildError`]. Mistakes in any of the crates' sources are found before the first is compiled.
pub fn build(options: &BuildOptions, progress: &mut dyn FnMut(&str)) -> Result<Vec<BuiltModule>, BuildError> {
    let crates = look_at_all(&options.dirs)?;
    let mut built = Vec::with_capacity(crates.len());
    for (author, functions) in &crates {
        let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
        progress(&format!("building {} ({})", author.name, names.join(", ")));
        built.push((author.name.as_str(), compile(options, author, functions)?));
    }
    fs::create_dir_all(&options.out).map_err(io_error(&options.out, "create"))?;
    let mut staged = Vec::with_capacity(built.len());
    let result = install(options, &built, &mut staged, progress);
    for leftover in staged {
        // Renamed ones are gone already.
        let _ = fs::remove_file(leftover);
    }
    result
}

/// Looks at each crate and its source, and across them.
fn look_at_all(dirs: &[PathBuf]) -> Result<Vec<(Crate, Vec<Function>)>, BuildError> {
    if dirs.is_empty() {
        return Err(BuildError::Nothing);
    }
    let mut crates: Vec<(Crate, Vec<Function>)> = Vec::with_capacity(dirs.len());
    for dir in dirs {
        let author = cargo::look_at(dir)?;
        let functions = scan::scan(&author.root)?;
        for (other, others) in &crates {
            if other.name == author.name {
                return Err(BuildError::DuplicateCrate(author.name));
            }
            let mut pairs = others.iter().flat_map(|a| functions.iter().map(move |b| (a, b)));
            if let Some((a, b)) = pairs.find(|(a, b)| a.name == b.name) {
                return Err(scan::duplicate(a, b));
            }
        }
        crates.push((author, functions));
    }
    Ok(crates)
}

/// Compiles one crate and checks what came out.
fn compile(options: &BuildOptions, author: &Crate, functions: &[Function]) -> Result<PathBuf, BuildError> {
    let target_dir = options.target_dir.clone().unwrap_or_else(|| author.target_dir.join("microfaas"));
    let target_dir = std::path::absolute(&target_dir).map_err(io_error(&target_dir, "find"))?;
    let shim = shim::write(author, functions, &target_dir.join("shim"))?;
    let compile = Compile {
        manifest: &shim.manifest,
        current_dir: author.manifest.parent().unwrap_or(Path::new(".")),
        target_dir: &target_dir,
        profile: options.profile.name(),
        verbose: options.verbose,
    };
    let file = cargo::compile(&compile, &author.manifest)?;
    let refused = |source| BuildError::Inspect { file: file.clone(), source };
    let found = inspect(&file).map_err(refused)?;
    debug_assert!(found.functions.iter().eq(functions.iter().map(|function| &function.name)));
    Ok(file)
}

/// Copies all beside their places, then renames all.
fn install(
    options: &BuildOptions,
    built: &[(&str, PathBuf)],
    staged: &mut Vec<PathBuf>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<BuiltModule>, BuildError> {
    for (name, file) in built {
        let temporary = options.out.join(format!(".{name}.so.{}", std::process::id()));
        staged.push(temporary.clone());
        fs::copy(file, &temporary).map_err(io_error(&temporary, "write"))?;
    }
    let mut modules = Vec::with_capacity(built.len());
    for ((name, _), temporary) in built.iter().zip(&*staged) {
        let path = options.out.join(format!("{name}.so"));
        let manifest =
            inspect(temporary).map_err(|source| BuildError::Inspect { file: temporary.clone(), source })?;
        fs::rename(temporary, &path).map_err(io_error(&path, "write"))?;
        progress(&format!("built {}", path.display()));
        modules.push(BuiltModule { name: (*name).to_owned(), path, functions: manifest.functions });
    }
    Ok(modules)
}
