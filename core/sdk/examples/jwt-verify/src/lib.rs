//! An access-control proxy's check: is this token good, and what does it claim?
//!
//! Two issuers' keys are compiled in and parsed once, when the module is loaded. A key is good for its own algorithm
//! only: a token cannot choose to be checked as something else.
#![forbid(unsafe_code)]

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use microfaas::{Request, Response};
use serde_json::{Map, Value, json};

/// Issuer that tokens must name in `iss`.
const ISSUER: &str = "https://issuer.example";
/// How far clocks may be apart.
const LEEWAY_SECONDS: u64 = 5;

/// One key and the only way it may be used.
#[derive(Debug)]
struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

/// What verification needs, parsed.
#[derive(Debug)]
pub struct Verifiers(Vec<Verifier>);

/// Parses the keys that are compiled in.
pub fn verifiers() -> Result<Verifiers, jsonwebtoken::errors::Error> {
    let secret = include_str!("../keys/hs256.key").trim().as_bytes();
    let public_key = include_str!("../keys/es256.public.pem").as_bytes();
    let keys = [
        (Algorithm::HS256, DecodingKey::from_secret(secret)),
        (Algorithm::ES256, DecodingKey::from_ec_pem(public_key)?),
    ];
    let verifier = |(algorithm, key)| {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.leeway = LEEWAY_SECONDS;
        Verifier { algorithm, key, validation }
    };
    let verifiers = Verifiers(keys.into_iter().map(verifier).collect());
    // Whatever the libraries set up at their first use is set up now, and not in each call.
    let _ = check(&verifiers, include_str!("../../data/es256.jwt").trim());
    Ok(verifiers)
}

/// Verifies the bearer token in the header `authorization`, or else the one in the body. Allows with 200 and the token's
/// claims, denies with 401 and the reason; both are JSON.
#[microfaas::function(name = "jwt-verify", init = verifiers)]
pub fn jwt_verify(verifiers: &Verifiers, request: Request<'_>) -> Response {
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let token = bearer.or_else(|| str::from_utf8(request.body()).ok()).unwrap_or_default().trim();
    let (status, answer) = match check(verifiers, token) {
        Ok(claims) => (200, json!({ "allow": true, "claims": claims })),
        Err(error) => (401, json!({ "allow": false, "reason": error.to_string() })),
    };
    let response = Response::new(format!("{answer}\n"))
        .with_status(status)
        .with_header("content-type", "application/json");
    if status == 401 { response.with_header("www-authenticate", "Bearer") } else { response }
}

fn check(verifiers: &Verifiers, token: &str) -> Result<Map<String, Value>, jsonwebtoken::errors::Error> {
    let algorithm = decode_header(token)?.alg;
    let known = verifiers.0.iter().find(|verifier| verifier.algorithm == algorithm);
    let verifier = known.ok_or(jsonwebtoken::errors::ErrorKind::InvalidAlgorithm)?;
    Ok(decode(token, &verifier.key, &verifier.validation)?.claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(token: &str) -> (u16, Value) {
        let verifiers = verifiers().unwrap();
        let answer = jwt_verify(&verifiers, Request::new(token.as_bytes()));
        (answer.status().unwrap(), serde_json::from_slice(answer.body()).unwrap())
    }

    #[test]
    fn good_tokens_are_allowed_with_their_claims() {
        for token in [include_str!("../../data/hs256.jwt"), include_str!("../../data/es256.jwt")] {
            let (status, answer) = ask(token);
            assert_eq!((status, &answer["allow"]), (200, &json!(true)), "{answer}");
            assert_eq!(answer["claims"]["sub"], "alice");
            assert_eq!(answer["claims"]["scope"], "orders:read orders:write");
        }
    }

    #[test]
    fn bad_tokens_are_denied_with_a_reason() {
        for (token, reason) in [
            (include_str!("../../data/expired.jwt"), "ExpiredSignature"),
            (include_str!("../../data/forged.jwt"), "InvalidSignature"),
            // Signed with HMAC, the public key taken for a secret.
            (include_str!("../../data/confused.jwt"), "InvalidSignature"),
            ("", "InvalidToken"),
            ("a.b.c", ""),
            // {"alg":"none"}
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.", ""),
        ] {
            let (status, answer) = ask(token);
            assert_eq!((status, &answer["allow"]), (401, &json!(false)), "{token}");
            let said = answer["reason"].as_str().unwrap();
            assert!(!said.is_empty() && said.contains(reason), "{token}: {said}");
            assert!(answer.get("claims").is_none());
        }
    }

    #[test]
    fn every_changed_byte_of_a_good_token_is_noticed() {
        let verifiers = verifiers().unwrap();
        let token = include_str!("../../data/hs256.jwt").trim();
        for at in (0..token.len()).step_by(3) {
            let mut changed = token.to_owned().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(check(&verifiers, &changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_bearer_header_goes_before_the_body() {
        let verifiers = verifiers().unwrap();
        let bearer = format!("Bearer {}", include_str!("../../data/hs256.jwt").trim());
        let request = Request::new(b"not a token").with_meta(&[("authorization", &bearer)]);
        assert_eq!(jwt_verify(&verifiers, request).status(), Some(200));
    }
}
