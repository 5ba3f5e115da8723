//! Loading a task's files: CommonJS by running them as functions, ES modules by QuickJS's own loader, and each from the other.

use std::rc::Rc;
use std::sync::Arc;

use tasker_adaptor::Failure;

use super::bridge::Op;
use super::compile::{CompileError, compile};
use super::host::FrameHost;
use super::modules;
use super::raw::{Ctx, ModuleError, ModuleSource, Stopper, Thrown, Value};
use super::read;
use crate::task::{ModuleFormat, Program};

/// The `module` object, what the file's end gave (its bare function), and the object that `exports` was at first.
type Common<'r> = (Value<'r>, Value<'r>, Value<'r>);

impl FrameHost {
    /// Bytecode of a file, from the cache or compiled.
    fn bytecode(&self, ctx: Ctx<'_>, program: &Program, path: &str) -> Result<Arc<[u8]>, Thrown> {
        if let Some(code) = self.cache.find(&program.version, path) {
            return Ok(code);
        }
        let Some(module) = modules::find(program, path) else {
            return Err(ctx.throw_named("Error", &format!("the task has no file {path}")));
        };
        let limits = self.frame(ctx)?.limits.clone();
        let code: Arc<[u8]> = match compile(program, module, &limits, Stopper::default()) {
            Ok(code) => code.into(),
            Err(CompileError::Syntax(failure)) => return Err(self.throw(ctx, &failure)),
            Err(CompileError::Limit(limit)) => {
                ctx.trip(limit);
                return Err(Thrown);
            }
        };
        self.cache.keep(&program.version, path, &code);
        Ok(code)
    }

    /// A CommonJS file, run at its first use.
    fn common<'r>(&self, ctx: Ctx<'r>, path: &str) -> Result<Common<'r>, Thrown> {
        if let Some(module) = self.common.borrow().get(path).cloned() {
            return Ok((ctx.kept(&module), ctx.undefined(), ctx.undefined()));
        }
        let frame = self.frame(ctx)?;
        let module = ctx.parse_json(r#"{"exports":{}}"#)?;
        let exports = module.get(c"exports")?;
        let key = Rc::new(ctx.keep(module.clone()));
        self.common.borrow_mut().insert(path.to_owned(), key);
        let ran = (|| {
            if modules::is_json(path) {
                let source = modules::find(&frame.program, path).map_or("", |file| &file.source);
                let value = read::value(ctx, source)?;
                module.define_hidden(c"exports", value)?;
                return Ok(ctx.undefined());
            }
            let code = self.bytecode(ctx, &frame.program, path)?;
            let function = ctx.run_script(&code)?;
            let here = ctx.string(path)?;
            let require = ctx.bound_function(Op::RequireFrom as i32, &here, &ctx.undefined())?;
            let folder = ctx.string(path.rsplit_once('/').map_or(".", |(folder, _)| folder))?;
            function.call_on(&exports, &[&exports, &require, &module, &here, &folder])
        })();
        if ran.is_err() {
            self.common.borrow_mut().remove(path);
        }
        Ok((module, ran?, exports))
    }

    pub(super) fn require<'r>(
        &self,
        ctx: Ctx<'r>,
        base: &str,
        name: &str,
    ) -> Result<Value<'r>, Thrown> {
        let frame = self.frame(ctx)?;
        let path = modules::resolve(&frame.program, base, name).map_err(|message| {
            self.throw(
                ctx,
                &Failure {
                    code: Some("MODULE_NOT_FOUND".into()),
                    ..Failure::new("Error", message)
                },
            )
        })?;
        let format = modules::find(&frame.program, &path).map(|module| module.format);
        if format == Some(ModuleFormat::EsModule) && !modules::is_json(&path) {
            return Err(ctx.throw_named(
                "Error",
                &format!("{path} is an ES module: load it with import('{name}')"),
            ));
        }
        self.common(ctx, &path)?.0.get(c"exports")
    }

    /// Loads the entry: `[isModule, exports or namespace, promise of the evaluation or bare function, was exported]`.
    pub(super) fn load<'r>(&self, ctx: Ctx<'r>) -> Result<Value<'r>, Thrown> {
        let frame = self.frame(ctx)?;
        let entry = &frame.program.entry;
        match entry.format {
            ModuleFormat::CommonJs => {
                let (module, end, first) = self.common(ctx, &entry.path)?;
                let exports = module.get(c"exports")?;
                let replaced = exports.identity() == 0 || exports.identity() != first.identity();
                let parts = vec![ctx.bool(false), exports, end, ctx.bool(replaced)];
                ctx.array(parts)
            }
            ModuleFormat::EsModule => {
                let code = self.bytecode(ctx, &frame.program, &entry.path)?;
                let module = ctx.load_module(&code)?;
                let evaluated = ctx.evaluate_module(module)?;
                let parts = vec![ctx.bool(true), ctx.namespace(module)?, evaluated];
                ctx.array(parts)
            }
        }
    }

    /// The module that an `import` names.
    pub(super) fn import<'r>(
        &self,
        ctx: Ctx<'r>,
        name: &str,
    ) -> Result<ModuleSource<'r>, ModuleError> {
        let loaded = (|| {
            let frame = self.frame(ctx)?;
            match modules::find(&frame.program, name) {
                None => Ok(None),
                Some(file) if file.format == ModuleFormat::CommonJs || modules::is_json(name) => {
                    let (module, ..) = self.common(ctx, name)?;
                    Ok(Some(ModuleSource::Exports(module.get(c"exports")?)))
                }
                Some(_) => self
                    .bytecode(ctx, &frame.program, name)
                    .map(|code| Some(ModuleSource::Bytecode(code))),
            }
        })();
        match loaded {
            Ok(Some(source)) => Ok(source),
            Ok(None) => Err(ModuleError::Missing(format!("the task has no file {name}"))),
            Err(Thrown) => Err(ModuleError::Thrown),
        }
    }
}
