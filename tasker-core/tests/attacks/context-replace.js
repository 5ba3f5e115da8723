// ends: completed undefined
try { globalThis.context={tools:{}} } catch(e) { print(String(e)) } print(typeof context.tools.svc); try { delete globalThis.context } catch(e) {} print(typeof context); try { context.tools={} ; print('tools replaced '+(typeof context.tools.svc)) } catch(e) { print('frozen') }
