// ends: completed undefined
[(1234567.891).toLocaleString(), new Date(0).toLocaleString(), 'ä'.localeCompare('z','de'), typeof Intl, 'I'.toLocaleLowerCase('tr')].join('|')
