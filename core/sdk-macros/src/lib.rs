//! The attribute macro of the microfaas SDK. Use it as `microfaas::function`; this crate has no other purpose.
//!
//! What the macro emits is safe Rust, so that an author's crate compiles under `#![forbid(unsafe_code)]`:
//! beside the function, which stays as it is, a hidden constant of type `microfaas::FunctionDef`. Exporting it
//! from a shared library is the work of a shim crate that `microfaas build` generates.

use proc_macro::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, ItemFn, LitStr, Path, Result, Token, Type};

/// Makes a function callable by name through a microfaas node.
///
/// See `microfaas::function` for the signatures and an example.
#[proc_macro_attribute]
pub fn function(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item_tokens = proc_macro2::TokenStream::from(item.clone());
    let expanded = syn::parse::<Arguments>(attribute)
        .and_then(|arguments| Ok((arguments, syn::parse::<ItemFn>(item)?)))
        .and_then(|(arguments, function)| expand(&arguments, &function));
    match expanded {
        Ok(tokens) => tokens.into(),
        // The function itself stays, so that the only error shown is ours.
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#item_tokens #error).into()
        }
    }
}

/// `name = "…"` and `init = path`, each at most once.
#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    init: Option<Path>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            match key.to_string().as_str() {
                "name" if arguments.name.is_none() => arguments.name = Some(input.parse()?),
                "init" if arguments.init.is_none() => arguments.init = Some(input.parse()?),
                "name" | "init" => return Err(Error::new(key.span(), format!("`{key}` is given twice"))),
                _ => {
                    return Err(Error::new(
                        key.span(),
                        format!("unknown key `{key}`; known are `name = \"…\"` and `init = path`"),
                    ));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

fn expand(arguments: &Arguments, function: &ItemFn) -> Result<proc_macro2::TokenStream> {
    let parameters = check(arguments, function)?;
    let ident = &function.sig.ident;
    let plain_name = ident.to_string();
    let plain_name = plain_name.strip_prefix("r#").unwrap_or(&plain_name);
    let name = arguments.name.clone().unwrap_or_else(|| LitStr::new(plain_name, ident.span()));
    let constant = format_ident!("__microfaas_{}", plain_name, span = ident.span());
    let name_check = quote_spanned! {name.span()=>
        const _: () = ::microfaas::__private::check_name(#name);
    };
    // Names of ours are none that the author's functions have, which are called beside them: items are not hygienic.
    // Spans of the author's signature: a type that does not fit is reported there.
    let input = parameters.input.span();
    let body = match (&arguments.init, parameters.state) {
        (Some(init), Some(state)) => {
            let input = quote_spanned!(input=> ::microfaas::__private::FromInvocation::from_invocation(__mfaas_invocation));
            let init = quote_spanned!(init.span()=> ::microfaas::__private::IntoState::into_state(#init()));
            quote! {
                static __MFAAS_STATE: ::microfaas::__private::State<#state> = ::microfaas::__private::State::new();
                fn __mfaas_init() -> ::core::result::Result<(), ::microfaas::Error> {
                    __MFAAS_STATE.set(#init?)
                }
                fn __mfaas_call(__mfaas_invocation: &::microfaas::__private::Invocation<'_>) -> ::microfaas::__private::Outcome {
                    __mfaas_invocation.finish(#ident(__MFAAS_STATE.get(), #input))
                }
                ::microfaas::FunctionDef::__new(#name, ::core::option::Option::Some(__mfaas_init), __mfaas_call)
            }
        }
        _ => {
            let input = quote_spanned!(input=> ::microfaas::__private::FromInvocation::from_invocation(__mfaas_invocation));
            quote! {
                fn __mfaas_call(__mfaas_invocation: &::microfaas::__private::Invocation<'_>) -> ::microfaas::__private::Outcome {
                    __mfaas_invocation.finish(#ident(#input))
                }
                ::microfaas::FunctionDef::__new(#name, ::core::option::Option::None, __mfaas_call)
            }
        }
    };
    Ok(quote! {
        #function

        #name_check

        #[doc(hidden)]
        #[allow(non_upper_case_globals, reason = "named after the function")]
        pub const #constant: ::microfaas::FunctionDef = {
            #body
        };
    })
}

/// The parameters that a checked signature has.
struct Parameters<'a> {
    /// What `init` builds, without the reference.
    state: Option<&'a Type>,
    input: &'a Type,
}

/// Refuses what could not be called, each with its reason at its place.
fn check<'a>(arguments: &Arguments, function: &'a ItemFn) -> Result<Parameters<'a>> {
    let signature = &function.sig;
    let refused = [
        (signature.asyncness.map(|t| t.span), "async: a worker runs one call at a time, without an executor"),
        (signature.unsafety.map(|t| t.span), "unsafe: functions are safe Rust"),
        (
            signature.abi.as_ref().map(Spanned::span),
            "extern: the exporting code is generated by `microfaas build`",
        ),
        (signature.variadic.as_ref().map(Spanned::span), "variadic"),
        (
            signature.generics.type_params().next().map(Spanned::span),
            "generic: the caller gives a name, not a type",
        ),
        (
            signature.generics.const_params().next().map(Spanned::span),
            "generic: the caller gives a name, not a value",
        ),
    ];
    for (span, why) in refused {
        if let Some(span) = span {
            return Err(Error::new(span, format!("a microfaas function cannot be {why}")));
        }
    }
    let mut types = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Typed(typed) => types.push(&*typed.ty),
            FnArg::Receiver(receiver) => {
                return Err(Error::new(
                    receiver.span(),
                    "a microfaas function is free-standing, not a method",
                ));
            }
        }
    }
    match (&arguments.init, types.as_slice()) {
        (None, [input]) => Ok(Parameters { state: None, input }),
        (None, _) => Err(Error::new(
            signature.paren_token.span.join(),
            "expected one parameter: `&[u8]` or `microfaas::Request<'_>` (a state before it needs `init = path`)",
        )),
        (Some(_), [state, input]) => match state {
            Type::Reference(reference) if reference.mutability.is_none() => {
                Ok(Parameters { state: Some(&reference.elem), input })
            }
            other => Err(Error::new(other.span(), "with `init`, the first parameter is `&State`")),
        },
        (Some(_), _) => Err(Error::new(
            signature.paren_token.span.join(),
            "with `init`, expected two parameters: `&State`, then `&[u8]` or `microfaas::Request<'_>`",
        )),
    }
}
