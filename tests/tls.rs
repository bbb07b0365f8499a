//! HTTPS as clients see it: every kind of answer, sessions that resume with every worker, certificates that change, and
//! what is wrong.

mod support;

#[path = "tls/answers.rs"]
mod answers;
#[path = "tls/browser.rs"]
mod browser;
#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/clients.rs"]
mod clients;
#[path = "tls/files.rs"]
mod files;
#[path = "tls/floods.rs"]
mod floods;
#[path = "tls/hostile.rs"]
mod hostile;
#[path = "tls/programs.rs"]
mod programs;
#[path = "tls/sessions.rs"]
mod sessions;
#[path = "tls/tools.rs"]
mod tools;
