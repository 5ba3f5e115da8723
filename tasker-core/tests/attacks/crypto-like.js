// ends: completed undefined
typeof crypto+' '+typeof WebAssembly+' '+typeof require+' '+typeof process+' '+typeof std+' '+typeof os+' '+typeof Worker+' '+typeof scriptArgs+' '+typeof navigator
