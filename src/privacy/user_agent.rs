//! What is kept of a user agent: the family of the browser and the class of the device.
//!
//! Both are one of a few symbols, whatever the text. That is why no library of patterns is used: the families and devices
//! that the common ones (uap-core's patterns, in several crates) give are cut out of the text itself, so that whoever writes the
//! text chooses what goes out, as many values as they like; and they take hundreds of regular expressions for it. The one crate with a
//! fixed set of names, woothee, has not been kept up since 2021, and does not tell tablets from phones.

use serde::Serialize;

/// A family of browsers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Browser {
    /// Any other, or none that is known.
    Other,
    /// Chrome, Chromium, and what calls itself so.
    Chrome,
    /// Microsoft's, old and new.
    Edge,
    /// Firefox and Firefox Focus.
    Firefox,
    /// Microsoft's before Edge.
    InternetExplorer,
    /// Opera, Opera Mini and Opera GX.
    Opera,
    /// Apple's.
    Safari,
    /// Samsung's.
    SamsungInternet,
}

/// A class of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Device {
    /// Any other (a television, a console), or none that is known.
    Other,
    /// A desk or lap computer. A tablet that asks for the sites of these does not differ from one: iPads do so by default.
    Desktop,
    /// A phone.
    Phone,
    /// A tablet.
    Tablet,
    /// No device of anybody's: a crawler, a monitor, a script.
    Bot,
}

/// What is known of a user agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserAgent {
    /// Its browser.
    pub browser: Browser,
    /// What it runs on.
    pub device: Device,
}

/// The first that stands in the text says which browser it is, since most name others as well, with which they want to be
/// taken as equal. All in lower case.
const BROWSERS: [(&str, Browser); 36] = [
    ("edg/", Browser::Edge),
    ("edge/", Browser::Edge),
    ("edga/", Browser::Edge),
    ("edgios/", Browser::Edge),
    ("opr/", Browser::Opera),
    ("opt/", Browser::Opera),
    ("opx/", Browser::Opera),
    ("opios/", Browser::Opera),
    ("opera/", Browser::Opera),
    ("opera ", Browser::Opera),
    ("samsungbrowser/", Browser::SamsungInternet),
    // Browsers of their own, and applications that show pages.
    ("yabrowser/", Browser::Other),
    ("vivaldi/", Browser::Other),
    ("ucbrowser/", Browser::Other),
    ("miuibrowser/", Browser::Other),
    ("huaweibrowser/", Browser::Other),
    ("duckduckgo/", Browser::Other),
    ("ddg/", Browser::Other),
    ("whale/", Browser::Other),
    ("silk/", Browser::Other),
    ("seamonkey/", Browser::Other),
    ("palemoon/", Browser::Other),
    ("gsa/", Browser::Other),
    ("fban/", Browser::Other),
    ("fbav/", Browser::Other),
    ("instagram ", Browser::Other),
    ("electron/", Browser::Other),
    ("fxios/", Browser::Firefox),
    ("focus/", Browser::Firefox),
    ("firefox/", Browser::Firefox),
    ("crios/", Browser::Chrome),
    ("chromium/", Browser::Chrome),
    ("chrome/", Browser::Chrome),
    ("trident/", Browser::InternetExplorer),
    ("msie ", Browser::InternetExplorer),
    // The browser that Android had before Chrome.
    ("android", Browser::Other),
];

/// What programs that are nobody's browser call themselves, or say where they are described.
const BOTS: [&str; 20] = [
    "crawl",
    "spider",
    "slurp",
    "headless",
    "lighthouse",
    "pingdom",
    "facebookexternalhit",
    "mediapartners-google",
    "google-extended",
    "feedfetcher",
    "phantomjs",
    "curl/",
    "wget/",
    "python-",
    "go-http-client",
    "apache-httpclient",
    "java/",
    "node-fetch",
    "axios/",
    "+http",
];

/// Devices that say they are like others.
const OTHER_DEVICES: [&str; 12] = [
    "smart-tv",
    "smarttv",
    "googletv",
    "android tv",
    "appletv",
    "hbbtv",
    "web0s",
    "crkey",
    "bravia",
    "xbox",
    "playstation",
    "nintendo",
];

/// A text that is longer than any browser's is not read beyond this, bytes.
const LENGTH_MAX: usize = 1_024;

impl UserAgent {
    /// What is known of the user agent that calls itself `text`.
    ///
    /// ```
    /// use clicktide::privacy::{Browser, Device, UserAgent};
    ///
    /// let text = "Mozilla/5.0 (Android 14; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0";
    /// assert_eq!(UserAgent::of(text), UserAgent { browser: Browser::Firefox, device: Device::Phone });
    /// ```
    pub fn of(text: &str) -> UserAgent {
        let text = text[..text.floor_char_boundary(LENGTH_MAX)].to_ascii_lowercase();
        match device(&text) {
            // Some name a browser whose engine they use.
            Device::Bot => UserAgent { browser: Browser::Other, device: Device::Bot },
            device => UserAgent { browser: browser(&text), device },
        }
    }
}

fn browser(text: &str) -> Browser {
    match BROWSERS.iter().find(|(token, _)| text.contains(token)) {
        Some((_, browser)) => *browser,
        None if text.contains("version/") && text.contains("safari/") => Browser::Safari,
        None => Browser::Other,
    }
}

fn device(text: &str) -> Device {
    let has = |token: &str| text.contains(token);
    match () {
        () if is_bot(text) => Device::Bot,
        () if OTHER_DEVICES.into_iter().any(has) => Device::Other,
        // Windows said which version of its Tablet PC platform it had, on any device.
        () if has("ipad") || (has("tablet") && !has("tablet pc")) => Device::Tablet,
        () if has("iphone") || has("ipod") || has("windows phone") || has("mobile") => Device::Phone,
        () if has("android") => Device::Tablet,
        () if ["windows nt", "macintosh", "x11;", "cros "].into_iter().any(has) => Device::Desktop,
        () => Device::Other,
    }
}

fn is_bot(text: &str) -> bool {
    // Cubot makes phones.
    let called_bot = text.match_indices("bot").any(|(place, _)| !text[..place].ends_with("cu"));
    called_bot || BOTS.into_iter().any(|token| text.contains(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_of_today() {
        fn check(browser: Browser, device: Device, text: &str) {
            assert_eq!(UserAgent::of(text), UserAgent { browser, device }, "{text}");
        }
        use Browser::{Chrome, Edge, Firefox, InternetExplorer, Opera, Other, Safari, SamsungInternet};
        use Device::{Bot, Desktop, Phone, Tablet};

        let chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        let chrome_on_android = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36";
        let of_iphone =
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)";
        check(Chrome, Desktop, chrome);
        check(Chrome, Desktop, &chrome.replace("Windows NT 10.0; Win64; x64", "X11; Linux x86_64"));
        check(Chrome, Desktop, &chrome.replace("Windows NT 10.0; Win64; x64", "X11; CrOS x86_64 14541.0.0"));
        check(Chrome, Desktop, &chrome.replace("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7"));
        check(Chrome, Phone, chrome_on_android);
        check(Chrome, Tablet, &chrome_on_android.replace(" Mobile", ""));
        check(Chrome, Phone, &format!("{of_iphone} CriOS/142.0.7444.77 Mobile/15E148 Safari/604.1"));
        // A web view, which says that it is one, but not whose.
        check(Chrome, Phone, &chrome_on_android.replace("K)", "Pixel 8; wv)"));

        check(Edge, Desktop, &format!("{chrome} Edg/142.0.0.0"));
        check(Edge, Phone, &format!("{chrome_on_android} EdgA/142.0.0.0"));
        check(Edge, Phone, &format!("{of_iphone} Version/18.0 EdgiOS/142.0.3595.66 Mobile/15E148 Safari/605.1.15"));
        check(Edge, Desktop, &format!("{chrome} Edge/18.19045"));
        check(Edge, Device::Other, &format!("{} Edge/44.18363.8131", chrome.replace("x64)", "x64; Xbox; Xbox One)")));

        check(Firefox, Desktop, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0");
        check(Firefox, Desktop, "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0");
        check(Firefox, Phone, "Mozilla/5.0 (Android 15; Mobile; rv:145.0) Gecko/145.0 Firefox/145.0");
        check(Firefox, Tablet, "Mozilla/5.0 (Android 15; Tablet; rv:145.0) Gecko/145.0 Firefox/145.0");
        check(Firefox, Phone, &format!("{of_iphone} FxiOS/145.0 Mobile/15E148 Safari/605.1.15"));

        check(Safari, Phone, &format!("{of_iphone} Version/18.6 Mobile/15E148 Safari/604.1"));
        let of_mac = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15";
        // An iPad that asks for the sites of desk computers says the same.
        check(Safari, Desktop, of_mac);
        check(Safari, Tablet, &of_mac.replace("Macintosh; Intel Mac OS X 10_15_7", "iPad; CPU OS 18_6 like Mac OS X"));

        check(Opera, Desktop, &format!("{chrome} OPR/124.0.0.0"));
        check(Opera, Phone, &format!("{chrome_on_android} OPR/92.0.0.0"));
        check(Opera, Phone, &format!("{of_iphone} Version/18.0 Mobile/15E148 Safari/604.1 OPT/6.2.1"));
        check(
            Opera,
            Phone,
            "Opera/9.80 (Android; Opera Mini/84.0.2254/191.303; U; en) Presto/2.12.423 Version/12.16 Mobile",
        );
        check(
            SamsungInternet,
            Phone,
            &chrome_on_android.replace("Chrome/142.0.0.0", "SamsungBrowser/29.0 Chrome/136.0.0.0"),
        );
        check(
            SamsungInternet,
            Tablet,
            "Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/29.0 Chrome/136.0.0.0 Safari/537.36",
        );
        check(InternetExplorer, Desktop, "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; AS; rv:11.0) like Gecko");
        check(InternetExplorer, Desktop, "Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; WOW64; Trident/6.0)");
        check(
            InternetExplorer,
            Desktop,
            "Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1; Trident/5.0; .NET CLR 3.5.30729; Tablet PC 2.0)",
        );
        check(
            Edge,
            Phone,
            "Mozilla/5.0 (Windows Phone 10.0; Android 6.0.1; Microsoft; Lumia 950) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/52.0.2743.116 Mobile Safari/537.36 Edge/15.15254",
        );

        check(Other, Desktop, &format!("{chrome} Vivaldi/7.6.3797.55"));
        check(
            Other,
            Desktop,
            &format!("{} YaBrowser/25.10.0.0 Yowser/2.5 Safari/537.36", &chrome[..chrome.len() - 14]),
        );
        check(Other, Phone, &format!("{of_iphone} Mobile/15E148 [FBAN/FBIOS;FBAV/530.0.0.41.107;FBBV/800000000]"));
        check(
            Other,
            Tablet,
            "Mozilla/5.0 (Linux; Android 11; KFTRWI) AppleWebKit/537.36 (KHTML, like Gecko) Silk/136.4.2 like Chrome/136.0.0.0 Safari/537.36",
        );
        check(
            Other,
            Phone,
            "Mozilla/5.0 (Linux; U; Android 4.0.3; de-de; GT-I9100) AppleWebKit/534.30 (KHTML, like Gecko) Version/4.0 Mobile Safari/534.30",
        );
        check(Firefox, Phone, "Mozilla/5.0 (Mobile; Nokia_8110_4G; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5");
        check(
            Other,
            Device::Other,
            "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) SMART-TV Safari/537.36",
        );
        check(Other, Device::Other, "okhttp/4.12.0");

        let googlebot = "(compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        check(Other, Bot, &format!("Mozilla/5.0 {googlebot}"));
        check(Other, Bot, &format!("{chrome_on_android} {googlebot}"));
        check(Other, Bot, "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)");
        check(Other, Bot, &chrome.replace("Chrome/", "HeadlessChrome/"));
        check(
            Other,
            Bot,
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        );
        check(Other, Bot, "facebookexternalhit/1.1");
        check(Other, Bot, "curl/8.14.1");
        check(Other, Bot, "python-requests/2.32.5");
        check(Other, Bot, "Go-http-client/2.0");
        check(Chrome, Phone, &chrome_on_android.replace("Android 10; K", "Android 9; CUBOT_X19"));
    }

    #[test]
    fn texts_that_are_no_user_agents() {
        let nothing = UserAgent { browser: Browser::Other, device: Device::Other };
        for text in
            ["", "-", " ", "alice@example.org", "Mozilla/5.0", "\0\u{1}\u{2}", "Ä", "../../etc/passwd", "${jndi:x}"]
        {
            assert_eq!(UserAgent::of(text), nothing, "{text:?}");
        }
        // Whatever comes after more than any browser says is not looked at, and is not cut within a character.
        let long = |filling: &str| format!("{} Firefox/145.0", filling.repeat(1_000_000));
        for filling in ["x", "é", "x€", "\u{1f600}"] {
            assert_eq!(UserAgent::of(&long(filling)), nothing, "{filling}");
        }
    }
}
