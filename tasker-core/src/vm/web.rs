//! The native half of `URL`, `URLSearchParams`, `TextEncoder` and `TextDecoder`: texts and bytes in, texts and bytes out.

use url::{Url, form_urlencoded, quirks};

use super::raw::{Args, Ctx, Kind, Thrown, Value};

/// `[href, origin, protocol, username, password, host, hostname, port, pathname, search, hash]`
fn parts<'r>(ctx: Ctx<'r>, url: &Url) -> Result<Value<'r>, Thrown> {
    let texts = [
        quirks::href(url).to_owned(),
        quirks::origin(url),
        quirks::protocol(url).to_owned(),
        quirks::username(url).to_owned(),
        quirks::password(url).to_owned(),
        quirks::host(url).to_owned(),
        quirks::hostname(url).to_owned(),
        quirks::port(url).to_owned(),
        quirks::pathname(url).to_owned(),
        quirks::search(url).to_owned(),
        quirks::hash(url).to_owned(),
    ];
    let texts: Result<Vec<_>, _> = texts.iter().map(|text| ctx.string(text)).collect();
    ctx.array(texts?)
}

/// `(input, base or undefined)`: the parts, or `undefined` when it is no URL.
pub(super) fn url_parse<'r>(ctx: Ctx<'r>, args: &Args<'r>) -> Result<Value<'r>, Thrown> {
    let input = args.at(0).text()?;
    let base = args.at(1);
    let base = match base.kind() {
        Kind::Undefined => None,
        _ => match Url::parse(&base.text()?) {
            Ok(base) => Some(base),
            Err(_) => return Ok(ctx.undefined()),
        },
    };
    match Url::options().base_url(base.as_ref()).parse(&input) {
        Ok(url) => parts(ctx, &url),
        Err(_) => Ok(ctx.undefined()),
    }
}

/// `(href, field, value)`: the parts after the setter of `field`; `undefined` when `href` is set to what is no URL.
pub(super) fn url_set<'r>(ctx: Ctx<'r>, args: &Args<'r>) -> Result<Value<'r>, Thrown> {
    let Ok(mut url) = Url::parse(&args.at(0).text()?) else {
        return Ok(ctx.undefined());
    };
    let value = args.at(2).text()?;
    let value = value.as_str();
    // A setter that refuses its value leaves the URL as it was; the standard wants no error.
    let _refused = match args.at(1).text()?.as_str() {
        "href" => {
            if quirks::set_href(&mut url, value).is_err() {
                return Ok(ctx.undefined());
            }
            Ok(())
        }
        "protocol" => quirks::set_protocol(&mut url, value),
        "username" => quirks::set_username(&mut url, value),
        "password" => quirks::set_password(&mut url, value),
        "host" => quirks::set_host(&mut url, value),
        "hostname" => quirks::set_hostname(&mut url, value),
        "port" => quirks::set_port(&mut url, value),
        "pathname" => {
            quirks::set_pathname(&mut url, value);
            Ok(())
        }
        "search" => {
            quirks::set_search(&mut url, value);
            Ok(())
        }
        "hash" => {
            quirks::set_hash(&mut url, value);
            Ok(())
        }
        _ => Ok(()),
    };
    parts(ctx, &url)
}

/// `(query)`: `[name, value, name, value, …]`.
pub(super) fn query_parse<'r>(ctx: Ctx<'r>, args: &Args<'r>) -> Result<Value<'r>, Thrown> {
    let query = args.at(0).text()?;
    let mut texts = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        texts.push(ctx.string(&name)?);
        texts.push(ctx.string(&value)?);
    }
    ctx.array(texts)
}

/// `([name, value, …])`: the query.
pub(super) fn query_write<'r>(ctx: Ctx<'r>, args: &Args<'r>) -> Result<Value<'r>, Thrown> {
    let list = args.at(0);
    let length = u32::try_from(list.length()?).unwrap_or(u32::MAX);
    let mut writer = form_urlencoded::Serializer::new(String::new());
    let mut index = 0;
    while index + 1 < length {
        let (name, value) = (
            list.get_index(index)?.text()?,
            list.get_index(index + 1)?.text()?,
        );
        writer.append_pair(&name, &value);
        index += 2;
    }
    ctx.string(&writer.finish())
}

/// `(text)`: its UTF-8 bytes.
pub(super) fn encode<'r>(ctx: Ctx<'r>, args: &Args<'r>) -> Result<Value<'r>, Thrown> {
    let text = args.at(0).text()?;
    ctx.bytes(text.as_bytes())
}

/// `(bytes, encoding, fatal)`: the text; `undefined` when `fatal` and the bytes are wrong.
pub(super) fn decode<'r>(ctx: Ctx<'r>, args: &Args<'r>) -> Result<Value<'r>, Thrown> {
    let fatal = args.at(2).kind() == Kind::Bool(true);
    let utf16 = args.at(1).text()? == "utf-16le";
    let text = args.at(0).with_bytes(|bytes| {
        if utf16 {
            let units = bytes.chunks(2).map(|pair| match pair {
                [low, high] => u16::from_le_bytes([*low, *high]),
                // Half a unit at the end is an error: a lone surrogate decodes to one.
                _ => 0xd800,
            });
            let mut text = String::with_capacity(bytes.len());
            for unit in char::decode_utf16(units) {
                match unit {
                    Ok(unit) => text.push(unit),
                    Err(_) if fatal => return None,
                    Err(_) => text.push('\u{fffd}'),
                }
            }
            Some(text)
        } else if fatal {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        } else {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    });
    match text {
        Some(Some(text)) => ctx.string(&text),
        Some(None) => Ok(ctx.undefined()),
        None => Err(ctx.throw_type("decode(bytes) takes an ArrayBuffer or a view of one")),
    }
}
