"""What the text of a request says about its task: words and phrases, with their weights.

All in lower case. A word that ends with ``*`` stands for all words that begin so. Languages stand
one after the other: English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Russian,
Turkish; Chinese and Japanese have no spaces between words, so theirs are phrases.
"""

from __future__ import annotations

from typing import Literal

Textual = Literal["chat", "code", "reasoning", "extraction", "translation", "vision", "embedding"]

LANGUAGES = """
    english french german spanish italian portuguese russian chinese mandarin japanese korean arabic
    hindi turkish polish dutch swedish danish norwegian finnish greek czech hungarian ukrainian hebrew
    latin vietnamese thai indonesian romanian bengali urdu swahili
"""

WORDS: dict[Textual, dict[float, str]] = {
    "code": {
        3: """
            python javascript typescript golang kotlin haskell perl scala fortran cobol matlab sql
            mysql postgresql sqlite mongodb redis regex regexp bash powershell dockerfile docker
            kubernetes kubectl terraform ansible nginx react vue angular svelte django flask fastapi
            numpy pandas pytorch tensorflow jquery html css json5 graphql webpack npm cargo maven
            gradle cmake makefile pytest junit git github gitlab refactor* debug* unittest* traceback
            stacktrace segfault* async await mutex semaphore typeerror valueerror nullpointerexception
            codebase docstring crashloopbackoff nodejs vim emacs vscode xcode intellij vba arduino
            pygame unreal godot unity3d laravel jinja symfony spring-boot phpmyadmin elasticsearch
            tailwind bootstrap nextjs rails laravel hibernate kafka rabbitmq oauth jwt websocket*
            cron ssh grep awk sed argparse virtualenv venv cuda opencv selenium sqlalchemy orm
            polymorphism argv idempotent deadlock* memoiz* subclass* website webpage navbar
        """,
        2: """
            code codes coding program* function functions algorithm* script scripts compil* bug bugs
            api apis endpoint* java rust swift php ruby lua julia c# c++ callback* recurs* runtime
            rebase commit commits stdin stdout boolean pointer pointers unicode backend frontend
            middleware microservice* pipeline deploy* leetcode syntax linter repository closure
            closures lambda decorator decorators iterator constructor enum enums struct structs
            inheritance responsive android ios app apps localhost dns firebase aws azure lambda s3
            excel formula macro assembly bitwise hex binary dataframe dataset iterate iterating
            express route routes toggle dependency injection switch pip conda gpu sdk ci/cd yaml toml
            parser regexes selector selectors plugin plugins webhook* firmware bytecode
            hierarchy dictionary dictionaries hooks boucle schleife bucle ciclo цикл* liste discord
            concurren* multithread* asynchron* serializ* deserializ* parameter parameters argument
            arguments userid login frontend crashes encoding
            funktion funktionen skript programmier* fonction fonctions código función funciones script
            codice funzione funções função functie kod kodu kodundaki funkcj* skrypt код кода коде
            функци* скрипт* программ* fonksiyon*
        """,
        1: """
            method methods class classes variable variables loop loops array arrays list string strings
            integer database databases schema query queries server client component module library
            framework package thread threads stack queue tree graph node nodes linux terminal shell
            button buttons click clicks form page install installed installing upgrade upgrading
            startup slow site sites game mode dark sort sorting sorted search hash table join inner outer column file files
            directory directories folder folders user users input output return returns write create
            build make add remove fix generate convert validate random element elements
            cli http https url json xml yaml csv cache implement* optimi* error errors exception*
            index migration object objects parser tests test unit complexity implementier* fehler
            implémente* requête implementa* consulta klasse classe ошибк* файл* klas* hata*
        """,
    },
    "reasoning": {
        3: """
            probability integral derivative* equation equations theorem eigenvalue* polynomial*
            converges diverges knave knaves riddle arithmetic congruent modulo factorial divisib*
            deduce infer wahrscheinlichkeit* gleichung* beweise berechne* résous équation probabilité
            resuelve ecuación probabilidad demuestra risolvi equazione probabilità dimostra resolva
            probabilidade bereken* oblicz* równani* вероятност* реши докажи вычисли уравнени*
            hesapla* denklem*
        """,
        2: """
            solve prove proof calculate compute evaluate simplify puzzle logic logical logically
            premise premises syllogism induction triangle* perimeter radius hypotenuse matrix sum
            percent percentage interest ratio average fraction* dice coin coins combinations
            permutations arrangements determine sqrt irrational prime mph kg litres liters
            inequality altogether overtake* overtook heavier lighter weighs earn earns earned sold
            decimal hexadecimal quader volumen dreieck kreis rectángulo triángulo différence
            rectangle circle area volume limit sin cos tan conclude infinitely surface fläche aire
            liar liars direction facing north south east west twins coordinates slope intersect*
            counterfeit finite strictly addiert summe durchschnitt prozent combien calcule calculer
            somme cuántos cuántas cuánto cuánta tarda calcula calcular quanti quante quanto calcola
            quantos quantas calcule hoeveel ile kilometrów сколько процент* сумм* kaç toplam*
        """,
        1: """
            if then each twice thrice half total remaining left older younger taller shorter faster
            slower speed distance minutes hours days ages price apples sheep balls row sit seat
            brother brothers sister sisters race position clock opposite cost costs spent spend spends
            bought buys profit discount equal equally difference product express solution integers
            larger bigger greater next father son mother arranged ways workers arbeiter
            daughter daughters fifth fourth third second first angle hands clock meet apart leap
            similar odd even true pounds dollars euros cents per day week cards marbles boxes
            sequence numbers number digits valid argument assume assumptions estimate reasoning
            deduct* therefore step steps x y n doppelt halb teilen jede jeder stunden minuten vitesse
            heures velocidad horas velocità ore часов минут км saat
        """,
    },
    "extraction": {
        3: """
            extract extracts extracting extraction classify classification sentiment entities entity ner
            json csv yaml extrahier* extrais extraire extrae extraer estrai estrarre extraia extraire
            extraheer wyodrębnij wypisz извлеки выдели классифицируй klassifizier* classifie
            clasifica classifica
        """,
        2: """
            category categories label labels labeled labelled identify parse
            categorise categorize categorized detect hashtags hashtag keywords entities metadata
            tag tags spam cv invoice receipt normalise normalize deduplicate structured fields keys key-value columns
            toxicity intent intents passage polarity aspects transcribe
            tabelle tableau tabla campos categorías kategorie категори* поля listele
        """,
        1: """
            list table text below following mentioned mention dates date names name addresses address
            phone numbers email emails prices amounts review reviews article articles records
            sentence subject verb noun nouns url urls topic context question headline
            in this from these into price pick get pull which welche quels quais
            given analyze analyse assign count read occurrences rating
            paragraph document resume cv notes ticket record records output return respond answer only
            positive negative neutral format map fill true false yes no convert text find folgenden texto testo тексте
        """,
    },
    "translation": {
        4: """
            translate translates translated translating translation* translator* übersetz* traduis
            traduire traduisez traduit traduction traducteur traduce traducir tradúceme traducción
            traduci tradurre traduzione traduza traduzir traduz tradução vertaal vertalen vertaling
            przetłumacz* tłumacz* переведи* перевод* перевести çevir* çeviri* subtitles subtitle
        """,
        2: "bedeutet signifie significa betekent znaczy locali* render native idiom idiomatic phrasebook",
        1: f"""
            {LANGUAGES}
            englisch* deutsch* französisch* spanisch* italienisch* anglais allemand espagnol français
            inglés francés alemán español inglese francese tedesco spagnolo inglês francês alemão
            engels duits frans angielski* niemieck* polski английск* немецк* русск* ingilizce*
            almanca* mean means meaning
        """,
    },
    "chat": {
        3: "poem poems limerick haiku sonnet joke jokes analogy song songs lyrics eulogy gedicht poème",
        2: """
            story stories essay novel novels recipe recipes
            birthday pretend roleplay hello hi hey thanks thank feel feeling feelings lonely
            recommend* advice toast blog tweet linkedin slogan horoscope bedtime letter speech
            witz geschichte rezept brief blague histoire recette poema chiste cuento
            receta poesia barzelletta storia ricetta libro verhaal wiersz* historii historie
            стих* шутк* рассказ* расскажи şiir* mesaj*
        """,
        1: """
            describe draft email message cook dinner travel trip weekend visit city compose
            imagine engaging persuasive compelling character coach relationship discuss suggest
            healthy symptoms workout business impact society social economic market war science
            biology physics quantum philosophy
            country capital museum music movie film book books author love friend friends boss job
            work think opinion favorite favourite plan ideas tips names history
            religion life people weather garden dog cat sleep polite tone meaning style feedback
            erzähl* raconte cuéntame spiegami consigli conte vertel opowiedz почему объясни anlat
        """,
        0.5: "tell who",
    },
    "vision": {2: "screenshot screenshots ocr pictured bild foto imagen immagine фото"},
    "embedding": {3: "embedding embeddings", 2: "embed vectorize vectorise"},
}

PHRASES: dict[Textual, dict[float, tuple[str, ...]]] = {
    "code": {
        3: ("c++", "c#", ".js", "node.js", "pull request", "unit test", "stack trace", "代码", "编程",
            "函数", "爬虫", "脚本", "コード", "関数", "リファクタ", "プログラム", "スクリプト"),
        2: ("in go,", "linked list", "left join", "inner join", "binary tree", "hash map", "o(n", "o(1",
            "write a class", "write a function", "write a program", "login form", "user_id", "go function", "на go", "in r ", "in c ", "data structure", "command line",
            "data class", "type hint", "rest endpoint", "rest api", "this loop", "reverse proxy", "time complexity", "merge conflict", "用 python"),
    },
    "reasoning": {
        3: ("step by step", "how many", "wie viele", "next number", "what is the value of", "prove that",
            "show that", "solve for", "find the value", "half as", "twice as", "odd one out", "least similar",
            "weighs more", "one brother", "comes next", "which is larger", "which is bigger", "can we conclude",
            "find its", "before yesterday", "each of them", "is the following argument", "truth-teller", "tell the truth",
            "what day will", "work out", "schritt für schritt", "paso a paso", "étape par étape",
            "计算", "多少", "证明", "求解", "方程", "概率", "几个", "何km", "求めよ", "求めて", "いくつ",
            "途中式", "何人", "計算"),
        1: ("how much", "how long", "how far", "how old", "wie viel", "wie lange", "wie groß"),
        2: ("if all ", "all of the", "chance that",
            "who is the", "let x", "let g", "at least", "times as", "show your", "qué velocidad",
            "quelle est la somme", "what follows", "which day", "the same as before", "per hour",
            "who owns", "er than ", "km/h"),
    },
    "extraction": {
        3: ("as json", "in json", "json array", "json object", "json format", "json schema",
            "key-value", "named entit", "part of speech", "pull out", "list every", "list all",
            "positive, negative", "one label", "action items", "au format json", "提取", "抽取", "分类",
            "抜き出", "抽出", "分類"),
        2: ("from the text", "from this text", "from the following", "the text below", "in the text",
            "based on the passage", "using only the", "which of these", "which category", "belong to",
            "answer with one", "reply with", "give me only", "just the number", "only the number",
            "with columns", "with keys", "with fields", "remove duplicates", "iso codes", "the following reviews", "following sentences", "following text",
            "following paragraph", "following data", "following records", "paragraph below",
            "passage below", "how many times", "on a scale of", "these categories", "the invoice",
            "each of the following", "the following questions", "in the sentence", "mentioned in", "in the message", "in diesem text", "the answer to the question",
            "this sentence:", "question:", "of this text", "of the text", "the following sentence",
            "aus folgendem text", "aus dem text", "du texte", "del siguiente", "nel seguente",
            "all the", "find all", "get the", "into its components", "out of this", "out of the",
            "from this", "с текста", "из текста", "as nested", "grouped as", "fact or opinion",
            "según el texto", "d'après le texte"),
    },
    "translation": {
        4: ("how do you say", "how would you say", "how to say", "wie sagt man", "comment dit-on",
            "comment dire", "cómo se dice", "come si dice", "como se diz", "как сказать", "翻译", "翻譯",
            "译成", "訳し", "英訳", "和訳", "に訳"),
        2: ("into english", "into french", "into german", "into spanish", "to english", "to french",
            "to german", "to spanish", "in english:", "word for", "ins englische", "ins deutsche",
            "ins französische", "en español", "en anglais", "en français", "in inglese", "al inglés",
            "на английский", "naar het", "mean in", "auf englisch", "auf deutsch", "auf spanisch", "auf französisch",
            "wie heißt", "put this into", "what does \"", "the spanish for",
            "英语", "英文", "德语", "法语", "日语", "英語", "日本語に"),
    },
    "chat": {
        2: ("how are you", "good morning", "good night", "good evening", "act as", "pretend to be",
            "in the style of", "tell me", "what should i", "could you help me", "can you help me",
            "what do you think", "give me tips", "come up with", "to a ten-year-old", "like i'm five",
            "推荐", "讲个", "写一首", "おすすめ", "教えて", "作文", "写一篇", "你好", "こんにちは"),
        1: ("who wrote", "who was", "what is the capital", "what happened", "difference between",
            "differences between", "write a short", "is it normal"),
    },
    "vision": {
        3: ("this image", "the image", "this picture", "the picture", "this photo", "the photo",
            "this screenshot", "attached image", "shown in the figure", "auf dem bild", "cette image",
            "esta imagen", "questa immagine", "на картинке", "на фото", "这张图", "图片", "この画像"),
    },
    "embedding": {3: ("vector representation", "for semantic search", "represent this")},
}  # fmt: skip
