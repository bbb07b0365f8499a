//! PURE. Reads certificates and keys from files in PEM (RFC 7468), and says what is wrong with others, and how to mend
//! it.
//!
//! The library skips what it does not know. A certificate that is skipped would be missed only by clients, or would
//! make the next one the server's own, so this refuses what was perhaps meant as one.
#![forbid(unsafe_code)]

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::der;

const BEGIN: &[u8] = b"-----BEGIN ";

/// Reads a chain of certificates. `file` is for the commands in a remedy.
///
/// # Errors
///
/// What is wrong, as what follows the name of the file in a sentence.
pub(super) fn certificates(bytes: &[u8], file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = text(bytes, file, "certificate")?;
    for label in labels(bytes)? {
        match label {
            b"TRUSTED CERTIFICATE" | b"X509 CERTIFICATE" => {
                return Err(format!(
                "holds a {}, which is a form of OpenSSL alone; convert it with openssl x509 -in {file} -out NEW.pem",
                String::from_utf8_lossy(label)
            ))
            }
            b"PKCS7" | b"CMS" => {
                return Err(format!(
                    "holds certificates in PKCS#7; convert it with openssl pkcs7 -print_certs -in {file} -out NEW.pem"
                ))
            }
            b"X509 CRL" => return Err("holds a revocation list, which is not supported; take it out".to_owned()),
            _ => {}
        }
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let chain = chain.map_err(broken)?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    let has = |wanted: &[u8]| labels(bytes).is_ok_and(|mut labels| labels.any(|label| label.ends_with(wanted)));
    Err(match () {
        () if has(b"CERTIFICATE REQUEST") => {
            "holds a request for a certificate; name the certificate that the authority has made of it".to_owned()
        }
        () if has(b"PRIVATE KEY") => "holds a key and no certificate; are the two files swapped?".to_owned(),
        () => "holds no certificate; it must begin with -----BEGIN CERTIFICATE-----".to_owned(),
    })
}

/// Reads the first key.
///
/// # Errors
///
/// As [`certificates`].
pub(super) fn private_key(bytes: &[u8], file: &str) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = text(bytes, file, "key")?;
    let is_encrypted = memchr::memmem::find(bytes, b"Proc-Type: 4,ENCRYPTED").is_some();
    let mut holds_certificates = false;
    for label in labels(bytes)? {
        match label {
            b"PRIVATE KEY" | b"RSA PRIVATE KEY" | b"EC PRIVATE KEY" if !is_encrypted => {
                return PrivateKeyDer::from_pem_slice(bytes).map_err(broken)
            }
            b"ENCRYPTED PRIVATE KEY" | b"RSA PRIVATE KEY" | b"EC PRIVATE KEY" => {
                return Err(format!(
                    "is encrypted; decrypt it with openssl pkey -in {file} -out NEW.pem, in a private directory"
                ))
            }
            b"OPENSSH PRIVATE KEY" => {
                return Err("holds a key for SSH; name the key from which the certificate was made".to_owned())
            }
            b"CERTIFICATE" => holds_certificates = true,
            _ => {}
        }
    }
    Err(match holds_certificates {
        true => "holds a certificate and no key; are the two files swapped?".to_owned(),
        false => "holds no key; it must contain -----BEGIN PRIVATE KEY-----".to_owned(),
    })
}

/// The text of a file, without the mark with which some editors begin it.
fn text<'a>(bytes: &'a [u8], file: &str, what: &str) -> Result<&'a [u8], String> {
    match bytes {
        [] => Err(format!("is empty; name a file with a {what}, or wait until it is written")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Err(format!("is UTF-16 and must be ASCII; convert it with iconv -f UTF-16 -t ASCII {file} >NEW.pem"))
        }
        _ if der::is_pkcs12(bytes) => Err(format!(
            "is PKCS#12 and must be PEM; convert it with openssl pkcs12 -nodes -in {file} -out NEW.pem, in a private \
             directory"
        )),
        _ if der::is_whole(bytes) => {
            let command = if what == "key" { "pkey" } else { "x509" };
            Err(format!(
                "is DER and must be PEM; convert it with openssl {command} -inform der -in {file} -out NEW.pem"
            ))
        }
        [0xef, 0xbb, 0xbf, text @ ..] => Ok(text),
        text => Ok(text),
    }
}

/// The kinds of the sections, in order.
fn labels(bytes: &[u8]) -> Result<impl Iterator<Item = &[u8]>, String> {
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        if memchr::memmem::rfind(line, BEGIN).is_some_and(|at| at > 0 && line[at - 1] != b'\r') {
            return Err(format!("has something before -----BEGIN in line {number}; begin a new line with it"));
        }
    }
    Ok(bytes.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| {
        let label = line.strip_prefix(BEGIN)?;
        label.trim_ascii_end().strip_suffix(b"-----")
    }))
}

fn broken(error: Error) -> String {
    match error {
        Error::MissingSectionEnd { .. } => "is no valid PEM: the end of a section is missing; get it again".to_owned(),
        error => format!("is no valid PEM ({error}); get it again"),
    }
}
