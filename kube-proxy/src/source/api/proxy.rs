//! Which proxy leads to the API server: the kubeconfig's, else the environment's, by the rules that Go
//! programs follow.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// A proxy that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("proxy-url {0:?} of the kubeconfig is not an http, https or socks5 URL")]
pub(super) struct BadProxy(String);

/// The proxy for `server`, if any. `environment` gives the value of a variable.
pub(super) fn choose(
    server: &Uri,
    proxy_url: Option<&str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Intercept>, BadProxy> {
    if let Some(url) = proxy_url {
        let proxy = Matcher::builder().all(url).build().intercept(server);
        return proxy
            .filter(is_supported)
            .map(Some)
            .ok_or_else(|| BadProxy(url.to_owned()));
    }
    let variable = |name: &str| {
        let upper = environment(name).filter(|value| !value.is_empty());
        upper
            .or_else(|| environment(&name.to_ascii_lowercase()))
            .unwrap_or_default()
    };
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host
        .parse::<IpAddr>()
        .map_or(host == "localhost", |ip| ip.is_loopback());
    let exceptions = variable("NO_PROXY");
    if is_loopback || exceptions.split(',').any(|exception| exception.trim() == "*") {
        return Ok(None);
    }
    let port = server.port_u16().unwrap_or(443).to_string();
    let exceptions: Vec<&str> = exceptions
        .split(',')
        .map(|one| exception(one.trim(), &port))
        .collect();
    let proxy = Matcher::builder()
        .http(variable("HTTP_PROXY"))
        .https(variable("HTTPS_PROXY"))
        .no(exceptions.join(","))
        .build()
        .intercept(server);
    Ok(proxy.filter(is_supported))
}

fn is_supported(proxy: &Intercept) -> bool {
    matches!(
        proxy.uri().scheme_str(),
        Some("http" | "https" | "socks5" | "socks5h")
    )
}

/// What Go allows in `NO_PROXY` and the matcher does not know: `*.domain` and `host:port`.
fn exception<'a>(text: &'a str, port: &str) -> &'a str {
    let text = text
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'))
        .unwrap_or(text);
    match text.rsplit_once(':') {
        Some((host, its_port)) if its_port == port && !host.contains(':') => host,
        Some((host, its_port)) if its_port == port => host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(text),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxy = choose(&server.parse().unwrap(), None, environment).unwrap();
        proxy.map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn the_environment_chooses_by_scheme_and_exceptions() {
        let https = ("HTTPS_PROXY", "http://proxy:3128");
        let server = "https://10.0.0.1:6443";
        for (server, variables, expected) in [
            (server, &[][..], None),
            (server, &[https], Some("http://proxy:3128/")),
            (
                server,
                &[("https_proxy", "proxy:3128")],
                Some("http://proxy:3128/"),
            ),
            (server, &[("HTTP_PROXY", "http://proxy:3128")], None),
            (server, &[https, ("NO_PROXY", "10.0.0.0/8")], None),
            (server, &[https, ("NO_PROXY", "10.0.0.1")], None),
            (server, &[https, ("no_proxy", " 192.0.2.1, 10.0.0.1:6443,")], None),
            (
                server,
                &[https, ("NO_PROXY", "10.0.0.1:443")],
                Some("http://proxy:3128/"),
            ),
            (server, &[https, ("NO_PROXY", "*")], None),
            (
                server,
                &[https, ("NO_PROXY", "proxy")],
                Some("http://proxy:3128/"),
            ),
            (
                "https://api.example.com",
                &[https, ("NO_PROXY", "*.example.com")],
                None,
            ),
            (
                "https://api.example.com",
                &[https, ("NO_PROXY", "ample.com,,")],
                Some("http://proxy:3128/"),
            ),
            (
                "https://[fd00::1]:6443",
                &[https, ("NO_PROXY", "[fd00::1]:6443")],
                None,
            ),
            ("https://[fd00::1]:6443", &[https, ("NO_PROXY", "fd00::/8")], None),
            ("https://127.0.0.1:6443", &[https], None),
            ("https://[::1]:6443", &[https], None),
            ("https://localhost:6443", &[https], None),
            (
                "http://10.0.0.1",
                &[https, ("HTTP_PROXY", "http://plain:1")],
                Some("http://plain:1/"),
            ),
        ] {
            assert_eq!(
                proxy(server, variables).as_deref(),
                expected,
                "{server} {variables:?}"
            );
        }
    }

    #[test]
    fn the_kubeconfig_s_proxy_beats_the_environment_and_its_exceptions() {
        let server: Uri = "https://127.0.0.1:6443".parse().unwrap();
        let all = |_: &str| Some("*".to_owned());
        let proxy = choose(&server, Some("socks5://user:pass@proxy:1080"), all)
            .unwrap()
            .unwrap();
        assert_eq!(proxy.uri().to_string(), "socks5://proxy:1080/");
        assert_eq!(proxy.raw_auth(), Some(("user", "pass")));
        let error = choose(&server, Some("ftp://proxy"), all).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("ftp://proxy"));
    }
}
