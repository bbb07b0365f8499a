//! PURE. Media types by the names of files.
#![forbid(unsafe_code)]

/// The type of a file without a known extension (RFC 2046 section 4.5.1).
const UNKNOWN: &str = "application/octet-stream";

/// The media type by the extension of a file name, or by the whole name if it has none, ignoring case.
///
/// Text is UTF-8, except for formats that may declare their encoding: a charset here would override the declaration of
/// an HTML page or a style sheet (RFC 9110 section 8.3.2 and the HTML standard, "determining the character encoding").
pub(crate) fn media_type(path: &[u8]) -> &'static str {
    let (table, key) = match extension(path) {
        Ok(extension) => (&BY_EXTENSION[..], extension),
        Err(name) => (&BY_NAME[..], name),
    };
    let lower = key.iter().map(u8::to_ascii_lowercase);
    let found = table.binary_search_by(|(known, _)| known.bytes().cmp(lower.clone()));
    found.map_or(UNKNOWN, |index| table[index].1)
}

/// Returns the media type of a file by its name: by its extension, or by the whole name if it has none, ignoring case.
/// Unknown ones are `application/octet-stream`. Text has `charset=utf-8`, except for HTML, CSS and other formats that
/// may declare their encoding themselves.
///
/// ```
/// assert_eq!(forkpool::media_type("img/logo.SVG"), "image/svg+xml");
/// assert_eq!(forkpool::media_type("unknown.xyz"), "application/octet-stream");
/// ```
pub fn media_type_of(path: impl AsRef<str>) -> &'static str {
    media_type(path.as_ref().as_bytes())
}

/// The text after the last dot of a path's last segment, or the whole segment if it has no dot.
pub(crate) fn extension(path: &[u8]) -> Result<&[u8], &[u8]> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(dot) => Ok(&name[dot + 1..]),
        None => Err(name),
    }
}

/// Names that are known as a whole, in order.
const BY_NAME: [(&str, &str); 15] = [
    ("apple-app-site-association", "application/json"),
    ("authors", TEXT),
    ("changelog", TEXT),
    ("changes", TEXT),
    ("contributing", TEXT),
    ("copying", TEXT),
    ("dockerfile", TEXT),
    ("install", TEXT),
    ("licence", TEXT),
    ("license", TEXT),
    ("makefile", TEXT),
    ("news", TEXT),
    ("notice", TEXT),
    ("readme", TEXT),
    ("todo", TEXT),
];

/// Also for formats whose own type browsers save instead of showing.
const TEXT: &str = "text/plain; charset=utf-8";

/// The formats that browsers get, by extension, in order. The names are those of the IANA registry of media types if it
/// has one; JavaScript is RFC 9239. A crate with all types would take 220 KiB of the binary.
const BY_EXTENSION: [(&str, &str); 178] = [
    ("3gp", "video/3gpp"),
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("ai", "application/postscript"),
    ("aif", "audio/aiff"),
    ("aiff", "audio/aiff"),
    ("apk", "application/vnd.android.package-archive"),
    ("apng", "image/apng"),
    ("arrow", "application/vnd.apache.arrow.file"),
    ("asc", "application/pgp-signature"),
    ("atom", "application/atom+xml"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bash", TEXT),
    ("bmp", "image/bmp"),
    ("br", "application/x-brotli"),
    ("bz2", "application/x-bzip2"),
    ("c", TEXT),
    ("cc", TEXT),
    ("cer", "application/x-x509-ca-cert"),
    ("cfg", TEXT),
    ("cjs", "text/javascript; charset=utf-8"),
    ("conf", TEXT),
    ("cpp", TEXT),
    ("crl", "application/pkix-crl"),
    ("crt", "application/x-x509-ca-cert"),
    ("css", "text/css"),
    ("csv", "text/csv; charset=utf-8"),
    ("cur", "image/vnd.microsoft.icon"),
    ("deb", "application/vnd.debian.binary-package"),
    ("der", "application/x-x509-ca-cert"),
    ("diff", TEXT),
    ("dmg", "application/x-apple-diskimage"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eot", "application/vnd.ms-fontobject"),
    ("eps", "application/postscript"),
    ("epub", "application/epub+zip"),
    ("exe", "application/vnd.microsoft.portable-executable"),
    ("flac", "audio/flac"),
    ("flv", "video/x-flv"),
    ("geojson", "application/geo+json"),
    ("gif", "image/gif"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("go", TEXT),
    ("gpx", "application/gpx+xml"),
    ("gz", "application/gzip"),
    ("h", TEXT),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("hpp", TEXT),
    ("hs", TEXT),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("ini", TEXT),
    ("ipynb", "application/x-ipynb+json"),
    ("iso", "application/x-iso9660-image"),
    ("jar", "application/java-archive"),
    ("java", TEXT),
    ("jfif", "image/jpeg"),
    ("jp2", "image/jp2"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("jsonld", "application/ld+json"),
    ("jsx", TEXT),
    ("jxl", "image/jxl"),
    ("kml", "application/vnd.google-earth.kml+xml"),
    ("kmz", "application/vnd.google-earth.kmz"),
    ("kt", TEXT),
    ("ktx2", "image/ktx2"),
    ("log", TEXT),
    ("lua", TEXT),
    ("m2ts", "video/mp2t"),
    ("m3u", "application/vnd.apple.mpegurl"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4b", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mid", "audio/midi"),
    ("midi", "audio/midi"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mka", "audio/matroska"),
    ("mkv", "video/matroska"),
    ("mobileconfig", "application/x-apple-aspen-config"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("msi", "application/x-msi"),
    ("mtl", "model/mtl"),
    ("ndjson", "application/x-ndjson"),
    ("obj", "model/obj"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("p12", "application/x-pkcs12"),
    ("parquet", "application/vnd.apache.parquet"),
    ("patch", TEXT),
    ("pdf", "application/pdf"),
    ("pem", "application/x-x509-ca-cert"),
    ("pl", TEXT),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("ps", "application/postscript"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("py", TEXT),
    ("rar", "application/vnd.rar"),
    ("rb", TEXT),
    ("rdf", "application/rdf+xml"),
    ("rpm", "application/x-rpm"),
    ("rs", TEXT),
    ("rss", "application/rss+xml"),
    ("rst", TEXT),
    ("rtf", "application/rtf"),
    ("sh", TEXT),
    ("sql", TEXT),
    ("sqlite", "application/vnd.sqlite3"),
    ("srt", TEXT),
    ("stl", "model/stl"),
    ("svg", "image/svg+xml"),
    ("svgz", "image/svg+xml"),
    ("swf", "application/vnd.adobe.flash.movie"),
    ("swift", TEXT),
    ("tar", "application/x-tar"),
    ("tex", TEXT),
    ("tgz", "application/gzip"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("tsv", "text/tab-separated-values; charset=utf-8"),
    ("tsx", TEXT),
    ("ttc", "font/collection"),
    ("ttf", "font/ttf"),
    ("ttl", "text/turtle; charset=utf-8"),
    ("txt", TEXT),
    ("usdz", "model/vnd.usdz+zip"),
    ("vcf", "text/vcard; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("wmv", "video/x-ms-wmv"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("xpi", "application/x-xpinstall"),
    ("xsd", "application/xml"),
    ("xsl", "application/xslt+xml"),
    ("xslt", "application/xslt+xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_type() {
        for (name, expected) in [
            ("index.html", "text/html"),
            ("INDEX.HTML", "text/html"),
            ("style.css", "text/css"),
            ("app.min.js", "text/javascript; charset=utf-8"),
            ("a.3gp", "video/3gpp"),
            ("a.yaml", "application/yaml"),
            ("archive.tar.gz", "application/gzip"),
            ("video/1.ts", "video/mp2t"),
            (".html", "text/html"),
            ("v1.2/README", TEXT),
            ("Makefile", TEXT),
            (".well-known/apple-app-site-association", "application/json"),
            ("html", UNKNOWN),
            ("readme.x", UNKNOWN),
            ("", UNKNOWN),
            ("a.html/", UNKNOWN),
            ("a.", UNKNOWN),
            ("a.zzz", UNKNOWN),
            ("a.htm\u{e9}", UNKNOWN),
        ] {
            assert_eq!(media_type(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn the_tables_can_be_searched() {
        for table in [&BY_EXTENSION[..], &BY_NAME] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
            for (key, media_type) in table {
                let is_in_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                assert!(key.bytes().all(is_in_key), "{key}");
                let says_its_own = matches!(*media_type, "text/html" | "text/css");
                let is_utf8 = media_type.ends_with("; charset=utf-8");
                assert_eq!(is_utf8, media_type.starts_with("text/") && !says_its_own, "{key}");
            }
        }
    }
}
