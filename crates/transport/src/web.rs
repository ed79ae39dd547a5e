//! Requests of ours to other people's HTTP doors: outside witnesses, and key statements of domains. One request, one bounded answer.
//!
//! In scope: connecting, TLS, redirects, time and size limits, which addresses are dialled. Elsewhere: what is asked, and what an answer means (crate
//! `exchange`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Error, http};

/// Bytes of an answer's status line and headers together.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// Which addresses a name may lead to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dial {
    /// Whatever the system's resolver says: for addresses that the node's owner has named.
    Any,
    /// Only addresses of the public Internet: for names that somebody else has chosen, so that nobody makes this node knock at its own neighbours' doors.
    Public,
    /// This one, whatever the name.
    Only(SocketAddr),
}

/// How requests are made.
#[derive(Clone, Debug)]
pub struct WebOptions {
    /// For everything together: name, connection, request, the whole answer.
    pub time_max: Duration,
    /// Bytes of an answer's body.
    pub body_bytes_max: u64,
    /// Redirects that are followed.
    pub redirects_max: u32,
    /// Whether the connection has to be encrypted, and the other side certified.
    pub https_only: bool,
    /// Which addresses are dialled.
    pub dial: Dial,
    /// Certificates (DER) that are trusted instead of the roots of the web.
    pub roots: Option<Vec<Vec<u8>>>,
}

/// A client with its connections.
#[derive(Clone, Debug)]
pub struct Web {
    agent: Agent,
    body_bytes_max: u64,
}

/// What was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// The content type as it was given; empty where none was.
    pub content_type: String,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The name leads to no address, or to none that is dialled.
    #[error("the name leads to no address that is dialled")]
    NoAddress,
    /// More than was asked for.
    #[error("the answer is longer than it may be")]
    TooLong,
    /// Not in time.
    #[error("there was no whole answer in time")]
    TooSlow,
    /// TLS: no certificate, or one that does not hold for that name.
    #[error("the connection cannot be trusted: {0}")]
    Untrusted(String),
    /// Anything else that happens to connections.
    #[error("{0}")]
    Failed(String),
}

impl Web {
    /// A client without connections.
    #[must_use]
    pub fn new(options: &WebOptions) -> Self {
        let roots = match &options.roots {
            None => RootCerts::WebPki,
            Some(roots) => {
                let certificate = |der: &Vec<u8>| Certificate::from_der(der).to_owned();
                let certificates: Vec<_> = roots.iter().map(certificate).collect();
                RootCerts::new_with_certs(&certificates)
            }
        };
        let config = Config::builder()
            .https_only(options.https_only)
            .max_redirects(options.redirects_max)
            .max_redirects_will_error(options.redirects_max > 0)
            .http_status_as_error(false)
            // The environment has no say in where we connect.
            .proxy(None)
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(HEADER_BYTES_MAX)
            .max_idle_connections(1)
            .timeout_global(Some(options.time_max))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let resolver = Resolving(options.dial);
        Self {
            agent: Agent::with_parts(config, DefaultConnector::default(), resolver),
            body_bytes_max: options.body_bytes_max,
        }
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// [`WebError`].
    pub async fn get(&self, url: String) -> Result<Fetched, WebError> {
        let agent = self.agent.clone();
        self.run(move || agent.get(url).call()).await
    }

    /// Hands something in.
    ///
    /// # Errors
    /// [`WebError`].
    pub async fn post(&self, url: String, body: String) -> Result<Fetched, WebError> {
        let agent = self.agent.clone();
        let posted = move || {
            agent
                .post(url)
                .content_type("text/plain; charset=utf-8")
                .send(body)
        };
        self.run(posted).await
    }

    /// A thread of its own for each request: nobody waits for it when the node goes down, and the time limit ends it.
    async fn run(
        &self,
        request: impl FnOnce() -> Result<http::Response<Body>, Error> + Send + 'static,
    ) -> Result<Fetched, WebError> {
        let (answer, answered) = oneshot::channel();
        let most = self.body_bytes_max;
        let work = move || {
            // Whoever asked may be gone.
            let _ = answer.send(request().and_then(|response| read(response, most)));
        };
        let named = thread::Builder::new().name("web".to_owned());
        named
            .spawn(work)
            .map_err(|error| WebError::Failed(error.to_string()))?;
        match answered.await {
            Ok(fetched) => fetched.map_err(WebError::from),
            Err(_) => Err(WebError::Failed("the request ended early".to_owned())),
        }
    }
}

fn read(mut response: http::Response<Body>, most: u64) -> Result<Fetched, Error> {
    let content_type = response.headers().get(http::header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let status = response.status().as_u16();
    // One more than is taken: the limit is an error where it is reached, even by the last byte.
    let reading = response.body_mut().with_config();
    let body = reading.limit(most.saturating_add(1)).read_to_vec()?;
    if body.len() as u64 > most {
        return Err(Error::BodyExceedsLimit(most));
    }
    Ok(Fetched {
        status,
        content_type,
        body,
    })
}

impl From<Error> for WebError {
    fn from(error: Error) -> Self {
        match error {
            Error::HostNotFound => Self::NoAddress,
            Error::BodyExceedsLimit(_) | Error::LargeResponseHeader(..) => Self::TooLong,
            Error::Timeout(_) => Self::TooSlow,
            Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::TooSlow,
            Error::Io(error) if is_tls(&error) => Self::Untrusted(words(&error)),
            Error::Rustls(error) => Self::Untrusted(words(&error)),
            Error::Tls(_) | Error::TlsRequired | Error::RequireHttpsOnly(_) => {
                Self::Untrusted(words(&error))
            }
            other => Self::Failed(words(&other)),
        }
    }
}

/// Whether a failure of a connection is one of TLS.
fn is_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// What may be shown on a terminal: the other side has a hand in it.
fn words(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[derive(Debug)]
struct Resolving(Dial);

impl Resolver for Resolving {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut dialled = self.empty();
        if let Dial::Only(address) = self.0 {
            dialled.push(address);
            return Ok(dialled);
        }
        // What is looked up here is what is connected to: a name that changes its mind in between gains nothing.
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        for address in found.iter() {
            if self.0 == Dial::Any || is_public(address.ip()) {
                dialled.push(*address);
            }
        }
        if dialled.is_empty() {
            return Err(Error::HostNotFound);
        }
        Ok(dialled)
    }
}

/// Whether an address is one of the public Internet: in none of the blocks that IANA keeps for special purposes, and in none that wraps such an address.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(a == 0
        || a == 10
        || a == 127
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113))
}

/// Of 2000::/3 only, where all that is public lies; without documentation, 6to4 and Teredo, which carry an IPv4 address.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    (0x2000..0x4000).contains(&a)
        && a != 0x2002
        && !(a == 0x2001 && (b < 0x200 || b == 0xdb8))
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;

    fn options() -> WebOptions {
        WebOptions {
            time_max: Duration::from_secs(20),
            body_bytes_max: 1000,
            redirects_max: 0,
            https_only: false,
            dial: Dial::Any,
            roots: None,
        }
    }

    /// A server that answers each connection as it is told; it ends with the test's process.
    fn serving(answer: impl Fn(&mut TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                answer(&mut stream);
            }
        });
        address
    }

    #[test]
    fn addresses_of_the_neighbourhood_are_none_of_the_internet() {
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    /// However the address is written: what is dialled counts.
    #[tokio::test]
    async fn nobody_makes_us_knock_at_a_neighbours_door() {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = door.local_addr().unwrap().port();
        door.set_nonblocking(true).unwrap();
        let web = Web::new(&WebOptions {
            dial: Dial::Public,
            ..options()
        });
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "localhost",
            "LOCALHOST.",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "user@127.0.0.1",
        ] {
            let fetched = web.get(format!("http://{host}:{port}/")).await;
            assert!(fetched.is_err(), "{host}");
            assert!(door.accept().is_err(), "{host} was dialled");
        }
    }

    #[tokio::test]
    async fn an_answer_is_as_long_as_it_may_be_and_no_longer() {
        for (bytes, good) in [(1000, true), (1001, false)] {
            for chunked in [false, true] {
                let door = serving(move |stream| {
                    let body = "a".repeat(bytes);
                    let text = if chunked {
                        format!(
                            "Transfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n{body}\r\n0\r\n\r\n"
                        )
                    } else {
                        format!("Content-Length: {bytes}\r\n\r\n{body}")
                    };
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n{text}");
                });
                let fetched = Web::new(&options()).get(format!("http://{door}/")).await;
                match fetched {
                    Ok(fetched) => assert!(good && fetched.body.len() == bytes),
                    Err(WebError::TooLong) => assert!(!good),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let door = serving(|stream| {
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
                "a".repeat(100_000)
            );
        });
        let fetched = Web::new(&options()).get(format!("http://{door}/")).await;
        assert!(fetched.is_err());
    }

    /// A byte now and then keeps nobody waiting beyond the limit, in headers or in the body.
    #[tokio::test]
    async fn a_slow_drip_ends_in_time() {
        for begun in [
            "HTTP/1.1 200 OK\r\nX: ",
            "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n",
        ] {
            let door = serving(move |stream| {
                let _ = stream.write_all(begun.as_bytes());
                // Until the other side has had enough.
                while stream.write_all(b"a").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let web = Web::new(&WebOptions {
                time_max: Duration::from_millis(300),
                ..options()
            });
            let fetched = web.get(format!("http://{door}/")).await;
            assert!(matches!(fetched, Err(WebError::TooSlow)), "{fetched:?}");
        }
    }

    #[tokio::test]
    async fn redirects_go_to_https_only_and_no_further_than_allowed() {
        let door = serving(|stream| {
            let _ = write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        });
        let none = Web::new(&options())
            .get(format!("http://{door}/"))
            .await
            .unwrap();
        assert_eq!(none.status, 302, "an answer like any other");
        let some = Web::new(&WebOptions {
            redirects_max: 2,
            ..options()
        });
        assert!(some.get(format!("http://{door}/")).await.is_err());
        let only = Web::new(&WebOptions {
            https_only: true,
            ..options()
        });
        let fetched = only.get(format!("http://{door}/")).await;
        assert!(
            matches!(fetched, Err(WebError::Untrusted(_))),
            "{fetched:?}"
        );
    }

    /// A root, and a certificate under it for `data.example`, made by OpenSSL.
    struct Made {
        root: Vec<u8>,
        leaf: Vec<u8>,
        key: Vec<u8>,
    }

    fn openssl(folder: &Path, words: &str) {
        let mut command = Command::new("openssl");
        let made = command.args(words.split(' ')).current_dir(folder).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{words}: {made:?}");
    }

    fn make() -> Made {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        std::fs::write(at.join("ext"), "subjectAltName=DNS:data.example\n").unwrap();
        openssl(
            at,
            &format!(
                "req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=root -days 2 -addext basicConstraints=critical,CA:TRUE"
            ),
        );
        openssl(
            at,
            &format!("req {new} -keyout leaf.key -out leaf.csr -subj /CN=leaf"),
        );
        openssl(
            at,
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out leaf.pem",
        );
        openssl(at, "x509 -in ca.pem -outform der -out ca.der");
        openssl(at, "x509 -in leaf.pem -outform der -out leaf.der");
        openssl(
            at,
            "pkcs8 -topk8 -nocrypt -in leaf.key -outform der -out leaf.key.der",
        );
        let read = |name: &str| std::fs::read(at.join(name)).unwrap();
        Made {
            root: read("ca.der"),
            leaf: read("leaf.der"),
            key: read("leaf.key.der"),
        }
    }

    /// A server with that certificate, which answers whoever trusts it.
    fn serving_tls(made: &Made) -> SocketAddr {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(made.leaf.clone())],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.key.clone())),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(session, stream.unwrap());
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
                );
                let _ = stream.flush();
            }
        });
        address
    }

    #[tokio::test]
    async fn only_who_is_certified_for_the_name_is_heard() {
        let made = make();
        let door = serving_tls(&made);
        let ask = async |roots: Option<Vec<Vec<u8>>>, url: &str| {
            let web = Web::new(&WebOptions {
                https_only: true,
                dial: Dial::Only(door),
                roots,
                ..options()
            });
            web.get(url.to_owned()).await
        };
        let trusted = Some(vec![made.root.clone()]);
        let good = ask(trusted.clone(), "https://data.example/x")
            .await
            .unwrap();
        assert_eq!((good.status, good.body.as_slice()), (200, &b"hello"[..]));
        // Another name, another root, the roots of the web, no TLS.
        let other = ask(trusted.clone(), "https://other.example/x").await;
        assert!(matches!(other, Err(WebError::Untrusted(_))), "{other:?}");
        let unknown = ask(Some(vec![make().root]), "https://data.example/x").await;
        assert!(
            matches!(unknown, Err(WebError::Untrusted(_))),
            "{unknown:?}"
        );
        let public = ask(None, "https://data.example/x").await;
        assert!(matches!(public, Err(WebError::Untrusted(_))), "{public:?}");
        let plain = ask(trusted, "http://data.example/x").await;
        assert!(matches!(plain, Err(WebError::Untrusted(_))), "{plain:?}");
    }
}
